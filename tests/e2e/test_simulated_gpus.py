"""The program on simulated GPUs: what rank 0 sends over (simulated) NCCL, and how every failure of a
device or of the link ends. Needs a build with MOEFY_CUDA=SIMULATED, as the preset asan is."""

import json
import os
import pathlib
import signal

import h5py
import numpy as np
import pytest

from conftest import ROOT, Moefy, write_llama
from mpi_job import GONE_WITHIN_SECONDS, Job
from recorded import write_recordings

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


# ---- layers that ranks share ----------------------------------------------------------------------

@pytest.fixture(scope="module")
def wide_model(tmp_path_factory):
    """Two layers of two blocks of rows each: of three ranks one has none."""
    folder = tmp_path_factory.mktemp("wide") / "llama"
    return write_llama(folder, layers=2, hidden=32, ffn=400, dtype=np.float16)


@pytest.fixture(scope="module")
def expected_of_wide(wide_model, tmp_path_factory):
    return map_of_one_rank(wide_model, tmp_path_factory.mktemp("wide-alone"))


def start_shared(model, folder, shards=RANKS, more=(), **how):
    return start(model, folder, more=["--shard-rows", str(shards), *more], **how)


@pytest.mark.parametrize("shards", [2, 3])
def test_sums_of_shared_rows_make_the_same_map_over_nccl_and_as_messages(
        shards, wide_model, expected_of_wide, tmp_path):
    for name, devices, nccl, line in [
            ("nccl", RANKS, NCCL, "sent by rank 0 as host messages; sums over NCCL 2.27.3"),
            ("shared", 1, NCCL, "; sums as host messages (ranks share a GPU)"),
            ("none", RANKS, tmp_path / "missing.so",
             "; sums as host messages (rank 0: NCCL cannot be loaded")]:
        folder = tmp_path / name
        folder.mkdir()
        job = start_shared(wide_model, folder, shards, devices=devices, more=["--share-devices"],
                           environment={"MOEFY_NCCL": str(nccl)})
        assert job.finish()[0] == 0, job.stderr
        assert f"layers: {shards} ranks share the rows of each (--shard-rows)" in job.stderr
        assert line in job.stderr
        assert (folder / "map.h5").read_bytes() == expected_of_wide


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("call, code", [
    ("ncclGetUniqueId:1", 5), ("ncclCommInitRankConfig:1", 5), ("ncclReduce:1", 5), ("ncclReduce:5", 5),
    ("ncclCommGetAsyncError:12", 5), ("ncclCommFinalize:1", 5), ("ncclCommDestroy:1", 5),
    ("cudaEventRecord:2", 6), ("cudaEventQuery:3", 6), ("cudaMalloc:12", 6), ("cudaMemsetAsync:2", 6),
    ("cudaStreamSynchronize:9", 6)])
def test_every_failure_of_shared_rows_ends_all_ranks_with_one_message(call, code, rank, wide_model,
                                                                      tmp_path):
    job = start_shared(wide_model, tmp_path, more=["--timeout", "5s"],
                       environment={"MOEFY_SIMULATED_FAILURE": call,
                                    "MOEFY_SIMULATED_FAILURE_RANK": str(rank)})
    found, seconds = job.finish()
    if found == 0:
        pytest.skip(f"rank {rank} does not call {call}")

    assert job.last_words().startswith(f"moefy: exit {code} "), job.stderr
    assert len(job.messages()) == 1, job.stderr
    assert f"[rank {rank} " in job.messages()[0]
    assert job.all_gone()
    assert not (tmp_path / "map.h5").exists()


@pytest.fixture(scope="module")
def long_wide_model(tmp_path_factory):
    """Enough layers that a job does not end between two looks at it."""
    folder = tmp_path_factory.mktemp("long-wide") / "llama"
    return write_llama(folder, layers=16, hidden=32, ffn=600, dtype=np.float16)


def wait_until_sums_are_added_up(job, folder):
    job.learn_ranks()
    assert job.wait_until(lambda: any(folder.glob("moefy-nccl-*/reducing-*"))), job.stderr


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_rank_that_is_killed_while_sums_are_added_up(rank, long_wide_model, tmp_path):
    job = start_shared(long_wide_model, tmp_path)
    wait_until_sums_are_added_up(job, tmp_path)
    job.signal_rank(rank, signal.SIGKILL)
    code, seconds = job.finish()

    assert code != 0
    assert seconds < GONE_WITHIN_SECONDS
    assert job.all_gone()
    assert not (tmp_path / "map.h5").exists()


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_rank_that_is_stopped_while_sums_are_added_up_is_noticed(rank, long_wide_model, tmp_path):
    job = start_shared(long_wide_model, tmp_path, more=["--timeout", "5s"])
    wait_until_sums_are_added_up(job, tmp_path)
    job.signal_rank(rank, signal.SIGSTOP)

    assert job.finish()[0] == 5, job.stderr
    assert len(job.messages()) == 1, job.stderr
    assert job.all_gone()


@pytest.mark.parametrize("rank", range(RANKS))
def test_a_rank_that_is_told_to_end_while_sums_are_added_up(rank, long_wide_model, tmp_path):
    job = start_shared(long_wide_model, tmp_path)
    wait_until_sums_are_added_up(job, tmp_path)
    job.signal_rank(rank, signal.SIGUSR1)
    code, _ = job.finish()

    assert code == 75, job.stderr
    assert job.last_words().startswith("moefy: exit 75 ")
    assert job.all_gone()


# ---- recorded tokens ------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with a model, its recordings and a map."""
    folder = tmp_path_factory.mktemp("recorded")
    model = write_llama(folder / "llama", layers=3, hidden=32, ffn=96, dtype=np.float16)
    moefy = Moefy(folder)
    write_recordings(moefy, model, folder / "rec.h5", tokens=4200)
    moefy("split", model, "-o", "map.h5", "--experts", 5, "--shared", 1, "--top-k", 2)
    return folder


def start_recorded(recorded, folder, command, ranks=1, devices=RANKS, backend="cuda", more=(),
                   environment=None):
    command = [PROGRAM, *command, "-o", folder / "out.h5", "--recordings", recorded / "rec.h5",
               "--threads", "1", "--backend", backend, *more]
    return Job(command, ranks, {**variables(devices, folder), **(environment or {})})


def start_route(recorded, folder, router="ridge", **how):
    command = ["route", recorded / "llama", recorded / "map.h5", "--router", router, "--evaluate"]
    return start_recorded(recorded, folder, command, **how)


def start_split(recorded, folder, method, **how):
    command = ["split", recorded / "llama", "--reproducible", "--experts", "5", "--shared", "1",
               "--top-k", "2", "--method", method]
    return start_recorded(recorded, folder, command, **how)


def made_by(start, recorded, folder, *what, **how):
    folder.mkdir()
    job = start(recorded, folder, *what, **how)
    assert job.finish()[0] == 0, job.stderr
    return folder / "out.h5"


@pytest.mark.parametrize("cublas", [False, True])
def test_routers_of_a_gpu_are_those_of_a_cpu_on_any_ranks(cublas, recorded, tmp_path):
    environment = {"MOEFY_CUBLAS": str(CUBLAS) if cublas else "off"}
    on_cpu = made_by(start_route, recorded, tmp_path / "cpu", backend="cpu")
    maps = [made_by(start_route, recorded, tmp_path / str(ranks), ranks=ranks,
                    environment=environment) for ranks in (1, 2, 3)]

    assert len({path.read_bytes() for path in maps}) == 1
    with h5py.File(on_cpu) as expected, h5py.File(maps[0]) as found:
        assert json.loads(found["config"][()])["route"]["backend"] == "cuda"
        for layer in expected["layers"].values():
            other = found[layer.name]
            weight = layer["router/weight"][:]
            np.testing.assert_allclose(other["router/weight"][:], weight,
                                       atol=1e-5 * np.abs(weight).max())
            for name, value in layer["stats/metrics"].attrs.items():
                assert other["stats/metrics"].attrs[name] == pytest.approx(value, rel=2e-3), name


def test_two_layer_routers_are_trained_on_a_gpu(recorded, tmp_path):
    made = [made_by(start_route, recorded, tmp_path / backend, "mlp", backend=backend,
                    more=["--epochs", "1", "--layers", "0"]) for backend in ("cpu", "cuda")]

    with h5py.File(made[0]) as expected, h5py.File(made[1]) as found:
        weight, other = (file["layers/00000/router/0/weight"][:] for file in (expected, found))
        np.testing.assert_allclose(other, weight, atol=1e-2 * np.abs(weight).max())


@pytest.mark.parametrize("method", ["routed", "activation", "coactivation", "kmeans"])
def test_methods_that_look_at_recordings_are_the_same_on_any_ranks(method, recorded, tmp_path):
    maps = [made_by(start_split, recorded, tmp_path / str(ranks), method, ranks=ranks)
            for ranks in (1, 3)]

    assert maps[0].read_bytes() == maps[1].read_bytes()


def test_auto_works_on_tokens_where_every_rank_sees_a_gpu(recorded, tmp_path):
    for devices, backend in [(RANKS, "cuda"), (0, "cpu")]:
        path = made_by(start_route, recorded, tmp_path / backend, ranks=2, devices=devices,
                       backend="auto")
        with h5py.File(path) as file:
            assert json.loads(file["config"][()])["route"]["backend"] == backend


@pytest.mark.parametrize("call", [
    "cudaMalloc:1", "cudaMalloc:9", "cudaMalloc:30", "cudaMallocHost:1", "launch:1", "launch:12",
    "cudaMemcpyAsync:4", "cudaMemsetAsync:1", "cudaStreamSynchronize:3", "cublasCreate:1",
    "cublasGemmEx:1", "cublasGemmEx:7"])
def test_a_device_that_fails_while_routers_are_fitted(call, recorded, tmp_path):
    job = start_route(recorded, tmp_path, ranks=2, environment={
        "MOEFY_CUBLAS": str(CUBLAS), "MOEFY_SIMULATED_FAILURE": call,
        "MOEFY_SIMULATED_FAILURE_RANK": "1"})

    assert job.finish()[0] == 6, job.stderr
    assert job.last_words().startswith("moefy: exit 6 "), job.stderr
    assert len(job.messages()) == 1 and "[rank 1 " in job.messages()[0], job.stderr
    assert job.all_gone()
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("devices, more, code, text", [
    (0, [], 6, "no NVIDIA GPU can be used here"),
    (1, ["--device", "7"], 6, "device 7 is not there: this process sees 1"),
    (1, ["--device-memory", "100K"], 6, "MiB are in use (--device-memory)"),
    (1, ["--device", "-1"], 2, "--device -1: at least 0 is needed")])
def test_route_refuses_devices_as_split_does(devices, more, code, text, recorded, tmp_path):
    job = start_route(recorded, tmp_path, devices=devices, more=more)

    assert job.finish()[0] == code, job.stderr
    assert len(job.messages()) == 1 and text in job.messages()[0], job.stderr
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("backend", ["cuda", "auto"])
def test_route_refuses_more_ranks_than_gpus(backend, recorded, tmp_path):
    job = start_route(recorded, tmp_path, ranks=RANKS, devices=2, backend=backend)
    assert job.finish()[0] == 2, job.stderr
    message, = job.messages()
    assert f": {RANKS} ranks, 2 GPUs;" in message and "--share-devices" in message, job.stderr

    job = start_route(recorded, tmp_path, ranks=RANKS, devices=2, backend=backend,
                      more=["--share-devices"])
    assert job.finish()[0] == 0, job.stderr
