"""split --shard-rows: ranks that share the rows of one layer make the bytes of one rank alone, and end
like any others when one of them fails, is lost or is told to stop."""

import json
import signal

import numpy as np
import pytest

from conftest import Moefy, program_path, write_llama
from mpi_job import GONE_WITHIN_SECONDS, Job

EXPERTS = ["--experts", "7"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two layers of five blocks of rows each, the last one not whole."""
    folder = tmp_path_factory.mktemp("shared") / "llama"
    return write_llama(folder, layers=2, hidden=64, ffn=1100, dtype=np.float16)


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory):
    """Makes the map of given options on one rank, once."""
    folder = tmp_path_factory.mktemp("alone")
    made = {}

    def make(*options):
        if options not in made:
            output = folder / f"{len(made)}.h5"
            Moefy(folder)("split", model, "-o", output, "--reproducible", *options)
            made[options] = output.read_bytes()
        return made[options]

    return make


@pytest.mark.parametrize("feed", ["local", "coordinator"])
@pytest.mark.parametrize("ranks, shards", [(2, 2), (3, 3), (3, 2), (2, 5)])
def test_ranks_that_share_rows_make_the_same_bytes(moefy, model, alone, tmp_path, ranks, shards, feed):
    result = moefy("split", model, "-o", "map.h5", "--reproducible", *EXPERTS, "--feed", feed,
                   "--shard-rows", shards, ranks=ranks)

    assert (tmp_path / "map.h5").read_bytes() == alone(*EXPERTS)
    assert f"{min(ranks, shards)} ranks share the rows of each (--shard-rows)" in result.stderr


@pytest.mark.parametrize("feed", ["local", "coordinator"])
@pytest.mark.parametrize("options", [
    ["--experts", "6", "--shared", "1"],
    ["--experts", "4", "--weights", "concat"],
    ["--experts", "5", "--weights", "down", "--normalize", "none"],
    ["--experts", "8", "--init", "kmeans++", "--sizes", "100..200"],
    ["--experts", "8", "--method", "random"],
    ["--experts", "9", "--init", "random", "--order", "norm", "--backend", "reference"],
], ids=lambda options: options[2].strip("-") + "-" + options[3])
def test_every_option_that_reads_rows(moefy, model, alone, tmp_path, options, feed):
    moefy("split", model, "-o", "map.h5", "--reproducible", *options, "--feed", feed,
          "--shard-rows", 3, "--layers", 1, ranks=3)

    assert (tmp_path / "map.h5").read_bytes() == alone(*options, "--layers", "1")


def test_auto_shares_when_there_are_more_ranks_than_layers(moefy, model, alone, tmp_path):
    result = moefy("split", model, "-o", "map.h5", "--reproducible", *EXPERTS, ranks=3)

    assert "2 ranks share the rows of each (more ranks than layers)" in result.stderr
    assert (tmp_path / "map.h5").read_bytes() == alone(*EXPERTS)


def test_auto_does_not_share_otherwise(moefy, model, tmp_path):
    result = moefy("split", model, "-o", "map.h5", *EXPERTS, ranks=2)
    own = moefy("split", model, "-o", "own.h5", *EXPERTS, "--shard-rows", 1, ranks=3)

    assert "share the rows" not in result.stderr + own.stderr


def test_one_rank_has_all_rows(moefy, model, alone, tmp_path):
    result = moefy("split", model, "-o", "map.h5", "--reproducible", *EXPERTS, "--shard-rows", 2)

    assert "--shard-rows 2: there is one rank, which has all rows" in result.stderr
    assert (tmp_path / "map.h5").read_bytes() == alone(*EXPERTS)


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_bad_numbers_are_refused(moefy, model, value):
    result = moefy("split", model, "-o", "map.h5", *EXPERTS, "--shard-rows", value, check=False)

    assert result.returncode == 2
    assert "--shard-rows" in result.stderr


def test_methods_that_look_at_recordings_do_not_share(moefy, model, tmp_path):
    result = moefy("split", model, "-o", "map.h5", *EXPERTS, "--shard-rows", 2, "--method", "activation",
                   "--recordings", "rec.h5", ranks=2, check=False)

    assert "--shard-rows 2: methods and options that look at --recordings" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_warm_start_is_shared(moefy, model, tmp_path):
    moefy("split", model, "-o", "cold.h5", *EXPERTS)
    warm = ["split", model, "--init-from", "cold.h5", "--reproducible", *EXPERTS]
    moefy(*warm, "-o", "alone.h5")

    moefy(*warm, "-o", "shared.h5", "--shard-rows", 2, ranks=2)

    assert (tmp_path / "shared.h5").read_bytes() == (tmp_path / "alone.h5").read_bytes()


@pytest.mark.parametrize("feed", ["local", "coordinator"])
def test_a_bad_value_of_another_member_names_its_place(moefy, tmp_path, feed):
    from safetensors.numpy import load_file, save_file

    model = write_llama(tmp_path / "nan", layers=1, ffn=600)
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.0.mlp.gate_proj.weight"][555, 7] = np.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    result = moefy("split", model, "-o", "map.h5", "--experts", 4, "--shard-rows", 2, "--feed", feed,
                   ranks=2, check=False)

    for word in ("layer 0", "rank 1 on", "gate_proj.weight", "row 555", "column 7"):
        assert word in result.stderr
    assert "moefy: exit 3 (" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["nan"]


RANKS = 3
LAYERS = 12


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    """Enough work that it does not end between two looks."""
    folder = tmp_path_factory.mktemp("long") / "llama"
    return write_llama(folder, layers=LAYERS, hidden=256, ffn=2048, dtype=np.float16)


def test_plan_knows_what_sharing_saves(moefy, long_model):
    def plan(*options):
        return json.loads(moefy("plan", long_model, "--experts", 16, "--json", *options).stdout)

    own = plan("--ranks", 2)
    shared = plan("--ranks", 2, "--shard-rows", 2)
    auto = plan("--ranks", 3 * LAYERS)

    assert own["ranks_a_layer"] == 1 and shared["ranks_a_layer"] == 2 and auto["ranks_a_layer"] == 3
    assert shared["peak_memory"] < own["peak_memory"]
    assert shared["peak_device_memory"] < own["peak_device_memory"]
    assert {layer["rank"] for layer in shared["layers"]} == {0}
    assert [layer["rank"] for layer in auto["layers"]] == list(range(0, 3 * LAYERS, 3))


def test_plan_shares_what_a_gpu_may_not_hold(moefy, long_model):
    def plan(*options, check=True):
        return moefy("plan", long_model, "--experts", 16, "--json", *options, check=check)

    own = json.loads(plan("--ranks", 2).stdout)["peak_device_memory"]
    shared = json.loads(plan("--ranks", 2, "--shard-rows", 2).stdout)["peak_device_memory"]
    limit = (own + shared) // 2

    assert json.loads(plan("--ranks", 2, "--device-memory", limit).stdout)["ranks_a_layer"] == 2
    assert json.loads(plan("--ranks", 2, "--device-memory", own).stdout)["ranks_a_layer"] == 1
    refused = plan("--ranks", 1, "--device-memory", limit, check=False)
    assert refused.returncode == 2
    assert "--device-memory allows" in refused.stderr and "--shard-rows" in refused.stderr


def start(model, folder, *more, ranks=RANKS, shards=RANKS, nredo=8):
    command = [program_path(), "split", model, "-o", folder / "map.h5", "--experts", "16",
               "--reproducible", "--threads", "1", "--nredo", nredo, "--shard-rows", shards, *more]
    return Job(command, ranks)


@pytest.fixture(scope="module")
def expected(long_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    job = start(long_model, folder, ranks=1)
    assert job.finish()[0] == 0, job.stderr
    return (folder / "map.h5").read_bytes()


def records(folder):
    return list((folder / "map.h5.journal").glob("*.record"))


def disturb(job, folder, rank, number):
    job.learn_ranks()
    assert job.wait_until(lambda: len(records(folder)) >= 1)
    job.signal_rank(rank, number)
    return job.finish()


def resume_alone(model, folder, expected):
    job = start(model, folder, ranks=2, shards=1)
    assert job.finish()[0] == 0, job.stderr
    assert "were finished before" in job.stderr
    assert (folder / "map.h5").read_bytes() == expected
    assert [path.name for path in folder.iterdir()] == ["map.h5"]


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_killed_member_ends_all(rank, long_model, expected, tmp_path):
    job = start(long_model, tmp_path)
    code, seconds = disturb(job, tmp_path, rank, signal.SIGKILL)

    assert code != 0
    assert seconds < GONE_WITHIN_SECONDS
    assert job.all_gone()
    assert not (tmp_path / "map.h5").exists()
    resume_alone(long_model, tmp_path, expected)


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_silent_member_is_noticed(rank, long_model, tmp_path):
    # Never finished, so it may be long: the rank has to stop before its last word.
    job = start(long_model, tmp_path, "--timeout", "5s", nredo=24)
    code, _ = disturb(job, tmp_path, rank, signal.SIGSTOP)

    assert code == 5, job.stderr
    assert len(job.messages()) == 1 and f"rank {rank} has given no sign" in job.messages()[0], job.stderr
    assert job.all_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("shards", [2, 3])
@pytest.mark.parametrize("rank", range(RANKS))
def test_a_signal_to_one_member_stops_all(number, rank, shards, long_model, expected, tmp_path):
    job = start(long_model, tmp_path, shards=shards)
    code, _ = disturb(job, tmp_path, rank, number)

    assert code == 75, job.stderr
    assert job.last_words().startswith("moefy: exit 75 ")
    resume_alone(long_model, tmp_path, expected)


def test_the_wall_time_ends_a_shared_run(long_model, tmp_path):
    job = start(long_model, tmp_path, "--wall-time", "0.001s")

    assert job.finish()[0] == 75, job.stderr
    assert len(job.messages()) == 1 and "wall time" in job.messages()[0], job.stderr
    assert not (tmp_path / "map.h5").exists()
