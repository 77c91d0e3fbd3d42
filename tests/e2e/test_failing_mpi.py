"""Every MPI function that a run makes fails once, on each rank of three: one message, exit code 5,
nobody left, journal intact, and the same command resumes to the same bytes."""

import pytest

from mpi_job import DRIVER, FAIL_LIBRARY, GONE_WITHIN_SECONDS, Job

RANKS = 3
ITEMS = ["items=24", "payload=300000", "work_ms=5"]

# The call of each that fails. Some functions are called by few ranks only: those cases are skipped.
CALLS = [
    "MPI_Init_thread:1", "MPI_Comm_set_errhandler:1", "MPI_Comm_dup:1", "MPI_Comm_dup:2",
    "MPI_Comm_rank:1", "MPI_Comm_size:1", "MPI_Ibcast:1", "MPI_Ibcast:7", "MPI_Igather:1",
    "MPI_Igather:3", "MPI_Isend:1", "MPI_Isend:9", "MPI_Irecv:1", "MPI_Irecv:3", "MPI_Improbe:1",
    "MPI_Improbe:40", "MPI_Imrecv:1", "MPI_Imrecv:6", "MPI_Get_count:1", "MPI_Get_count:8",
    "MPI_Test:1", "MPI_Test:60", "MPI_Ibarrier:1", "MPI_Comm_free:1", "MPI_Comm_free:2",
    "MPI_Finalize:1",
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The right output, and how often each rank calls each function."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = Job([DRIVER, f"output={folder / 'out'}", *ITEMS], RANKS,
              {"MOEFY_TEST_COUNT_CALLS": str(folder / "calls")}, FAIL_LIBRARY)
    code, _ = job.finish()
    assert code == 0, job.stderr
    counts = {}
    for rank in range(RANKS):
        lines = (folder / f"calls.{rank}").read_text().splitlines()
        counts[rank] = {name: int(count) for name, count in (line.split() for line in lines)}
    return (folder / "out").read_bytes(), counts


def test_list_of_calls_is_complete(undisturbed):
    _, counts = undisturbed
    made = {name for rank in counts.values() for name in rank}
    diagnostics = {"MPI_Initialized", "MPI_Finalized", "MPI_Error_string", "MPI_Get_library_version"}

    assert made - diagnostics == {call.partition(":")[0] for call in CALLS}


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("call", CALLS)
def test_failing_call_ends_the_job(call, rank, undisturbed, tmp_path):
    expected, counts = undisturbed
    name, _, number = call.partition(":")
    if counts[rank].get(name, 0) < int(number):
        pytest.skip(f"rank {rank} does not call {name} that often")
    command = [DRIVER, f"output={tmp_path / 'out'}", *ITEMS]
    job = Job(command, RANKS, {"MOEFY_TEST_FAIL_CALL": call, "MOEFY_TEST_FAIL_RANK": str(rank)},
              FAIL_LIBRARY)
    code, seconds = job.finish()

    assert code == 5, job.stderr
    messages = job.messages()
    assert len(messages) == 1, job.stderr
    assert messages[0].startswith(f"moefy: [rank {rank} on ") and f"{name} " in messages[0]
    assert job.last_words() == "moefy: exit 5 (communication)"
    assert seconds < GONE_WITHIN_SECONDS + 5
    assert job.all_gone()

    again = Job(command, RANKS)
    code, _ = again.finish()
    assert code == 0, again.stderr
    assert (tmp_path / "out").read_bytes() == expected
    assert "damaged" not in again.stderr


@pytest.mark.parametrize("diagnostic", ["MPI_Initialized:1", "MPI_Finalized:1", "MPI_Error_string:1"])
def test_failing_diagnosis_does_not_hide_the_failure(diagnostic, tmp_path):
    """The call to ask MPI about the failure fails, too: the job ends all the same."""
    job = Job([DRIVER, f"output={tmp_path / 'out'}", *ITEMS], RANKS,
              {"MOEFY_TEST_FAIL_CALL": f"MPI_Isend:2,{diagnostic}", "MOEFY_TEST_FAIL_RANK": "1"},
              FAIL_LIBRARY)
    code, _ = job.finish()

    assert code == 5, job.stderr
    assert len(job.messages()) == 1
    assert job.all_gone()
