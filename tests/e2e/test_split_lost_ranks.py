"""The real program under the same treatment as the queue's driver: killed, stopped, interrupted and
with failing MPI calls, it loses nothing, and ends in the same bytes when started again."""

import signal

import numpy as np
import pytest

from conftest import program_path, write_llama
from mpi_job import FAIL_LIBRARY, GONE_WITHIN_SECONDS, Job

RANKS = 3
LAYERS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Enough work that it does not end between two looks."""
    folder = tmp_path_factory.mktemp("model") / "llama"
    return write_llama(folder, layers=LAYERS, hidden=256, ffn=2048, dtype=np.float16)


def start(model, folder, ranks=RANKS, more=(), environment=None, preload=None):
    command = [program_path(), "split", model, "-o", folder / "map.h5", "--experts", "16",
               "--reproducible", "--threads", "1", "--nredo", "8", *more]
    return Job(command, ranks, environment, preload)


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    job = start(model, folder, ranks=1)
    assert job.finish()[0] == 0, job.stderr
    return (folder / "map.h5").read_bytes()


def records(folder):
    return {path.name: path.stat().st_mtime_ns
            for path in (folder / "map.h5.journal").glob("*.record")}


def resume(model, folder, expected, ranks):
    job = start(model, folder, ranks)
    code, _ = job.finish()
    assert code == 0, job.stderr
    assert "damaged" not in job.stderr
    assert (folder / "map.h5").read_bytes() == expected
    assert [path.name for path in folder.iterdir()] == ["map.h5"]


@pytest.mark.parametrize("done", range(10))
def test_kill_at_ten_moments(done, model, expected, tmp_path):
    job = start(model, tmp_path)
    job.learn_ranks()
    assert job.wait_until(lambda: len(records(tmp_path)) >= done)
    job.kill_rank(done % RANKS)

    assert not (tmp_path / "map.h5").exists()
    resume(model, tmp_path, expected, ranks=1 + done % 3)


def test_resuming_on_another_kind_of_cpu_warns_and_works(model, expected, tmp_path):
    job = start(model, tmp_path)
    assert job.wait_until(lambda: len(records(tmp_path)) >= 1)
    job.process.send_signal(signal.SIGUSR1)
    assert job.finish()[0] == 75, job.stderr
    note = tmp_path / "map.h5.journal" / "machine.txt"
    assert note.read_text()
    note.write_text("Abacus 1, wood")

    job = start(model, tmp_path, ranks=1)

    assert job.finish()[0] == 0, job.stderr
    assert "another kind of machine (Abacus 1, wood; this is " in job.stderr
    assert (tmp_path / "map.h5").read_bytes() == expected


def test_the_end_of_the_wall_time_stops_in_order(model, tmp_path):
    job = start(model, tmp_path, more=["--wall-time", "0.001s"])

    assert job.finish()[0] == 75, job.stderr
    assert len(job.messages()) == 1 and "wall time" in job.messages()[0], job.stderr
    assert job.last_words().startswith("moefy: exit 75 ")
    assert not (tmp_path / "map.h5").exists()


@pytest.mark.parametrize("rank", range(RANKS))
def test_stopped_rank_is_noticed(rank, model, expected, tmp_path):
    job = start(model, tmp_path, more=["--timeout", "5s"])
    job.learn_ranks()
    assert job.wait_until(lambda: len(records(tmp_path)) >= 1)
    job.signal_rank(rank, signal.SIGSTOP)
    code, _ = job.finish()

    assert code == 5, job.stderr
    assert len(job.messages()) == 1, job.stderr
    assert job.all_gone()
    resume(model, tmp_path, expected, ranks=2)


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_to_one_rank_stops_all(number, rank, model, expected, tmp_path):
    job = start(model, tmp_path)
    job.learn_ranks()
    assert job.wait_until(lambda: len(records(tmp_path)) >= 1)
    job.signal_rank(rank, number)
    code, _ = job.finish()

    assert code == 75, job.stderr
    assert job.last_words().startswith("moefy: exit 75 ")
    resume(model, tmp_path, expected, ranks=3)


@pytest.mark.parametrize("feed", ["local", "coordinator"])
@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("call", ["MPI_Init_thread:1", "MPI_Comm_dup:2", "MPI_Ibcast:3",
                                  "MPI_Igather:2", "MPI_Isend:4", "MPI_Irecv:1", "MPI_Imrecv:3",
                                  "MPI_Test:30", "MPI_Ibarrier:1", "MPI_Finalize:1"])
def test_failing_call_ends_the_job(call, rank, feed, model, expected, tmp_path):
    environment = {"MOEFY_TEST_FAIL_CALL": call, "MOEFY_TEST_FAIL_RANK": str(rank)}
    job = start(model, tmp_path, more=["--feed", feed], environment=environment,
                preload=FAIL_LIBRARY)
    code, seconds = job.finish()
    if code == 0:
        pytest.skip(f"rank {rank} does not call {call} that often")

    assert code == 5, job.stderr
    assert len(job.messages()) == 1, job.stderr
    assert job.last_words() == "moefy: exit 5 (communication)"
    assert seconds < GONE_WITHIN_SECONDS + 10
    assert job.all_gone()
    if not (tmp_path / "map.h5").exists():
        resume(model, tmp_path, expected, ranks=2)
    assert (tmp_path / "map.h5").read_bytes() == expected
