"""Processes of one torchrun job: what happens when one of them is gone or silent."""

import os
import socket
import subprocess
import sys

import pytest

from conftest import ROOT

PROGRAM = """
import os, sys
from moefy.errors import PeerError
from moefy.ranks import Ranks

try:
    with Ranks(float(sys.argv[1])) as ranks:
        assert ranks.first(lambda: "both are here") == "both are here"
        if ranks.rank == 1:
            sys.stdin.read()  # until the other one closes it
            os._exit(0)
        print("waiting", flush=True)
        ranks.first(lambda: "never")
except PeerError as error:
    print(error, flush=True)
    os._exit(error.code)
"""


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


@pytest.fixture
def two_ranks():
    processes = []

    def start(timeout):
        port = str(free_port())
        for rank in (0, 1):
            environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "MASTER_ADDR": "127.0.0.1",
                           "MASTER_PORT": port, "RANK": str(rank), "WORLD_SIZE": "2"}
            processes.append(subprocess.Popen([sys.executable, "-c", PROGRAM, str(timeout)], text=True,
                                              env=environment, stdin=subprocess.PIPE,
                                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        assert processes[0].stdout.readline() == "waiting\n"
        return processes

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_rank_that_ends_is_noticed_at_once(two_ranks):
    first, second = two_ranks(timeout=600)
    second.kill()

    output, _ = first.communicate(timeout=60)

    assert first.returncode == 5
    assert "rank 0 lost another rank" in output


def test_a_silent_rank_is_noticed_in_time(two_ranks):
    first, _ = two_ranks(timeout=2)

    output, _ = first.communicate(timeout=60)

    assert first.returncode == 5
    assert "for 2 s (--timeout)" in output
