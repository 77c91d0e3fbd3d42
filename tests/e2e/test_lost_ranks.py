"""Ranks that are killed, stopped or asked to leave: the others notice, finished work stays, and the
same command on any number of ranks ends in the same bytes."""

import os
import signal
import time

import pytest

from mpi_job import DRIVER, GONE_WITHIN_SECONDS, Job

RANKS = 3
ITEMS = ["items=30", "payload=200000"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    job = Job([DRIVER, f"output={output}", *ITEMS], 1)
    assert job.finish()[0] == 0, job.stderr
    return output.read_bytes()


def start(folder, ranks=RANKS, work_ms=40, timeout_ms=60_000):
    return Job([DRIVER, f"output={folder / 'out'}", *ITEMS, f"work_ms={work_ms}",
                f"timeout_ms={timeout_ms}"], ranks)


def records(folder):
    return {path.name for path in (folder / "out.journal").glob("*.record")}


def resume(folder, expected, ranks, at_least_done):
    """Runs to the end; nothing that was done before is done again."""
    before = len(records(folder))
    assert before >= at_least_done
    job = start(folder, ranks, work_ms=0)
    code, _ = job.finish()
    assert code == 0, job.stderr
    assert f"driver: {30 - before} items to do" in job.stderr
    assert (folder / "out").read_bytes() == expected
    assert sorted(path.name for path in folder.iterdir()) == ["out"]


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("done", [1, 4, 9, 20])
def test_killed_rank_loses_nothing_that_was_finished(rank, done, expected, tmp_path):
    job = start(tmp_path)
    job.learn_ranks()
    assert job.wait_until(lambda: len(records(tmp_path)) >= done)
    job.kill_rank(rank)

    assert not (tmp_path / "out").exists()
    resume(tmp_path, expected, ranks=1 + (rank + done) % 3, at_least_done=done)


@pytest.mark.parametrize("rank", range(RANKS))
def test_stopped_rank_is_noticed_after_the_time_out(rank, expected, tmp_path):
    job = start(tmp_path, work_ms=300, timeout_ms=5000)
    job.learn_ranks()
    assert job.wait_until(lambda: len(records(tmp_path)) >= 2)
    job.signal_rank(rank, signal.SIGSTOP)
    code, seconds = job.finish()

    assert code == 5, job.stderr
    messages = job.messages()
    assert len(messages) == 1, job.stderr
    assert f"rank {rank} has given no sign of life for 5 s" in messages[0]
    assert job.last_words() == "moefy: exit 5 (communication)"
    assert seconds < 5 + GONE_WITHIN_SECONDS
    assert job.all_gone()
    resume(tmp_path, expected, ranks=2, at_least_done=2)


def test_long_work_is_not_taken_for_silence(tmp_path):
    job = Job([DRIVER, f"output={tmp_path / 'out'}", "items=3", "work_ms=3500", "timeout_ms=1000"],
              RANKS)

    assert job.finish()[0] == 0, job.stderr


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_to_one_rank_stops_all(number, rank, expected, tmp_path):
    job = start(tmp_path, work_ms=200)
    job.learn_ranks()
    assert job.wait_until(lambda: len(records(tmp_path)) >= 2)
    job.signal_rank(rank, number)
    code, seconds = job.finish()

    assert code == 75, job.stderr
    assert len(job.messages()) == 1, job.stderr
    assert job.last_words().startswith("moefy: exit 75 ")
    assert seconds < GONE_WITHIN_SECONDS
    resume(tmp_path, expected, ranks=3, at_least_done=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_to_the_launcher_stops_all(number, expected, tmp_path):
    job = start(tmp_path, work_ms=200)
    assert job.wait_until(lambda: len(records(tmp_path)) >= 2)
    job.process.send_signal(number)
    code, _ = job.finish()

    assert code == 75, job.stderr
    assert job.last_words().startswith("moefy: exit 75 ")
    assert job.all_gone()
    resume(tmp_path, expected, ranks=2, at_least_done=2)


def test_waiting_ranks_cost_no_cpu(tmp_path):
    """One item on three ranks: two of them only wait."""
    job = Job([DRIVER, f"output={tmp_path / 'out'}", "items=1", "work_ms=6000"], RANKS)
    assert job.wait_until(lambda: (tmp_path / "out.lock").exists() and len(job.ranks()) == RANKS)
    pids = job.ranks()

    def ticks(pid):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    time.sleep(0.5)
    before = {rank: ticks(pid) for rank, pid in pids.items()}
    begin = time.monotonic()
    time.sleep(4)
    share = {rank: (ticks(pid) - before[rank]) / os.sysconf("SC_CLK_TCK") /
             (time.monotonic() - begin) for rank, pid in pids.items()}
    assert job.finish()[0] == 0, job.stderr

    assert max(share.values()) < 0.05, share
