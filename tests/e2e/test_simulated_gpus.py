"""The program on simulated GPUs: what rank 0 sends over (simulated) NCCL, and how every failure of a
device or of the link ends. Needs a build with MOEFY_CUDA=SIMULATED, as the preset asan is."""

import json
import os
import pathlib
import signal

import numpy as np
import pytest

from conftest import ROOT, write_llama
from mpi_job import GONE_WITHIN_SECONDS, Job

BUILD = pathlib.Path(os.environ.get("MOEFY_SIMULATED_BUILD", ROOT / "build" / "asan"))
PROGRAM = BUILD / "bin" / "moefy"
NCCL = BUILD / "lib" / "libmoefy_simt_nccl.so"
CUBLAS = BUILD / "lib" / "libmoefy_simt_cublas.so"
RANKS = 3

pytestmark = pytest.mark.skipif(not (PROGRAM.exists() and NCCL.exists()),
                                reason=f"{PROGRAM} is not built")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "llama"
    return write_llama(folder, layers=6, hidden=32, ffn=96, dtype=np.float16)


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    """Enough work that a job does not end between two looks at it."""
    folder = tmp_path_factory.mktemp("long") / "llama"
    return write_llama(folder, layers=24, hidden=32, ffn=96, dtype=np.float16)


def variables(devices, folder):
    return {"MOEFY_SIMULATED_DEVICES": str(devices), "MOEFY_NCCL": str(NCCL), "TMPDIR": str(folder),
            "ASAN_OPTIONS": "detect_leaks=0"}  # Open MPI keeps memory until the end


def start(model, folder, ranks=RANKS, devices=RANKS, experts=4, backend="cuda", more=(),
          environment=None):
    command = [PROGRAM, "split", model, "-o", folder / "map.h5", "--experts", str(experts),
               "--reproducible", "--threads", "1", "--backend", backend, "--feed", "coordinator",
               *more]
    return Job(command, ranks, {**variables(devices, folder), **(environment or {})})


def map_of_one_rank(model, folder):
    job = start(model, folder, ranks=1)
    assert job.finish()[0] == 0, job.stderr
    return (folder / "map.h5").read_bytes()


@pytest.fixture(scope="module")
def expected(model, tmp_path_factory):
    return map_of_one_rank(model, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def expected_of_long(long_model, tmp_path_factory):
    return map_of_one_rank(long_model, tmp_path_factory.mktemp("long-alone"))


def wait_until_layers_travel(job, folder):
    job.learn_ranks()
    assert job.wait_until(lambda: any(folder.glob("moefy-nccl-*/sending-0"))), job.stderr


def test_nccl_and_host_messages_make_the_same_map(model, expected, tmp_path):
    for name, devices, nccl, line in [
            ("nccl", RANKS, NCCL, "layers: sent by rank 0 over NCCL"),
            ("shared", 1, NCCL, "layers: sent by rank 0 as host messages (ranks share a GPU)"),
            ("none", RANKS, tmp_path / "missing.so", "as host messages (rank 0: NCCL cannot be loaded")]:
        folder = tmp_path / name
        folder.mkdir()
        job = start(model, folder, devices=devices, more=["--share-devices"],
                    environment={"MOEFY_NCCL": str(nccl)})
        assert job.finish()[0] == 0, job.stderr
        assert line in job.stderr
        assert (f"{RANKS} ranks share 1 GPU on " in job.stderr) == (devices < RANKS)
        assert (folder / "map.h5").read_bytes() == expected


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("call, code", [
    ("ncclGetUniqueId:1", 5), ("ncclCommInitRankConfig:1", 5), ("ncclSend:2", 5), ("ncclRecv:1", 5),
    ("ncclCommGetAsyncError:20", 5), ("ncclCommFinalize:1", 5), ("ncclCommDestroy:1", 5),
    ("cudaMalloc:1", 6), ("cudaMalloc:9", 6), ("cudaMallocHost:2", 6), ("launch:3", 6),
    ("cudaMemcpyAsync:6", 6), ("cudaEventRecord:1", 6), ("cudaEventQuery:2", 6),
    ("cudaStreamSynchronize:4", 6)])
def test_every_failure_ends_all_ranks_with_one_message(call, code, rank, model, expected, tmp_path):
    job = start(model, tmp_path, more=["--timeout", "5s"],
                environment={"MOEFY_SIMULATED_FAILURE": call,
                             "MOEFY_SIMULATED_FAILURE_RANK": str(rank)})
    found, seconds = job.finish()
    if found == 0:
        pytest.skip(f"rank {rank} does not call {call}")

    assert job.last_words().startswith(f"moefy: exit {code} "), job.stderr
    assert len(job.messages()) == 1, job.stderr
    assert f"[rank {rank} " in job.messages()[0]
    assert job.all_gone()
    job = start(model, tmp_path, ranks=2)
    assert job.finish()[0] == 0, job.stderr
    assert (tmp_path / "map.h5").read_bytes() == expected


@pytest.mark.parametrize("failure, text", [
    (None, ""), ("cublasCreate", "device 0, starting cuBLAS: CUBLAS_STATUS_"),
    ("cublasGemmEx:3", "products by cuBLAS: CUBLAS_STATUS_")])
def test_products_by_cublas(failure, text, model, tmp_path):
    environment = {"MOEFY_CUBLAS": str(CUBLAS)}
    if failure is not None:
        environment["MOEFY_SIMULATED_FAILURE"] = failure
    job = start(model, tmp_path, ranks=1, experts=48, environment=environment)
    code, _ = job.finish()

    if failure is None:
        assert code == 0, job.stderr
    else:
        assert code == 6 and job.last_words().startswith("moefy: exit 6 "), job.stderr
        assert len(job.messages()) == 1 and text in job.messages()[0], job.stderr
    assert (tmp_path / "map.h5").exists() == (failure is None)


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_rank_that_is_killed_while_layers_travel(rank, long_model, expected_of_long, tmp_path):
    job = start(long_model, tmp_path)
    wait_until_layers_travel(job, tmp_path)
    job.signal_rank(rank, signal.SIGKILL)
    code, seconds = job.finish()

    assert code != 0
    assert seconds < GONE_WITHIN_SECONDS
    assert job.all_gone()
    assert not (tmp_path / "map.h5").exists()
    job = start(long_model, tmp_path, ranks=2)
    assert job.finish()[0] == 0, job.stderr
    assert (tmp_path / "map.h5").read_bytes() == expected_of_long


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_stopped_rank_is_noticed(rank, long_model, tmp_path):
    job = start(long_model, tmp_path, more=["--timeout", "5s"])
    wait_until_layers_travel(job, tmp_path)
    job.signal_rank(rank, signal.SIGSTOP)

    assert job.finish()[0] == 5, job.stderr
    assert len(job.messages()) == 1, job.stderr
    assert job.all_gone()


@pytest.mark.parametrize("devices, more, text", [
    (0, [], "no NVIDIA GPU can be used here"),
    (1, ["--device", "7"], "device 7 is not there: this process sees 1")])
def test_devices_that_are_not_there(devices, more, text, model, tmp_path):
    job = start(model, tmp_path, devices=devices, more=more)

    assert job.finish()[0] == 6, job.stderr
    assert len(job.messages()) == 1 and text in job.messages()[0], job.stderr
    assert not (tmp_path / "map.h5").exists()


@pytest.mark.parametrize("backend", ["cuda", "auto"])
def test_more_ranks_than_gpus_are_refused(backend, model, tmp_path):
    job = start(model, tmp_path, devices=2, backend=backend)

    assert job.finish()[0] == 2, job.stderr
    message, = job.messages()
    assert f": {RANKS} ranks, 2 GPUs;" in message and "--share-devices" in message, job.stderr
    assert list(tmp_path.glob("map.h5*")) == []


def test_bench_kernels_names_what_bounds_them(tmp_path):
    job = Job([PROGRAM, "bench", "kernels", "--json", "--repeats", "2", "--sizes",
               "2050x8/4,2050x8/65", "--backend", "cuda"], 1,
              {**variables(1, tmp_path), "MOEFY_CUBLAS": str(CUBLAS)})
    out, job.stderr = job.process.communicate(timeout=120)

    assert job.process.returncode == 0, job.stderr
    machine, *lines = [json.loads(line) for line in out.splitlines()]
    assert machine["type"] == "machine" and "simulated device" in machine["backend"]
    own = ["copy of the rows to the device", "sum of the rows", "fp32 costs", "int8 costs"]
    assert [line["kernel"] for line in lines] == [*own, *own, "cuBLAS fp32 products"]
    for line in lines:
        assert line["type"] == "kernel" and line["shape"] in ("2050x8/4", "2050x8/65")
        assert 0 < line["seconds"]["min"] <= line["seconds"]["median"] <= line["seconds"]["max"]
        assert line["gigabytes_per_second"] > 0
        assert ("gigaflops" in line) == (line["kernel"] not in own[:2])


@pytest.mark.parametrize("ranks", [1, RANKS])
def test_a_cap_that_no_layer_fits_ends_the_run_before_it_begins(ranks, model, tmp_path):
    job = start(model, tmp_path, ranks=ranks, more=["--device-memory", "4K"])

    assert job.finish()[0] == 2, job.stderr
    assert len(job.messages()) == 1 and "--device-memory allows 4" in job.messages()[0], job.stderr
    assert not (tmp_path / "map.h5").exists()


def test_bench_link_measures_both_links(tmp_path):
    job = Job([PROGRAM, "bench", "link", "--json", "--repeats", "2", "--sizes", "100000",
               "--backend", "cuda"], 2, variables(2, tmp_path))

    assert job.finish()[0] == 0, job.stderr
