"""The program on simulated GPUs: what rank 0 sends over (simulated) NCCL, and how every failure of a
device or of the link ends. Needs a build with MOEFY_CUDA=SIMULATED, as the preset asan is."""

import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess

import h5py
import numpy as np
import pytest

from conftest import ROOT, Moefy, write_llama
from mpi_job import Job
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
          environment=None, run_by=()):
    command = [*run_by, PROGRAM, "split", model, "-o", folder / "map.h5", "--experts", str(experts),
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


def folders_of_failures(folder, start, call, code):
    """Runs that end because one rank's call fails: each rank's in turn that makes it. Their folders."""
    for rank in range(RANKS):
        folder_of_rank = folder / str(rank)
        folder_of_rank.mkdir()
        job = start(folder_of_rank, more=["--timeout", "5s"],
                    environment={"MOEFY_SIMULATED_FAILURE": call, "MOEFY_SIMULATED_FAILURE_RANK": str(rank)})
        if job.finish()[0] == 0:  # this rank does not make the call
            continue
        assert job.last_words().startswith(f"moefy: exit {code} "), job.stderr
        assert len(job.messages()) == 1, job.stderr
        assert f"[rank {rank} " in job.messages()[0]
        assert job.all_gone()
        assert not (folder_of_rank / "map.h5").exists()
        yield folder_of_rank


@pytest.mark.parametrize("call, code", [
    ("ncclGetUniqueId:1", 5), ("ncclCommInitRankConfig:1", 5), ("ncclSend:2", 5), ("ncclRecv:1", 5),
    ("ncclCommGetAsyncError:8", 5), ("ncclCommFinalize:1", 5), ("ncclCommDestroy:1", 5),
    ("growing a pool:1", 6), ("cudaMallocFromPoolAsync:9", 6), ("cudaMallocHost:2", 6),
    ("cudaMalloc:1", 6), ("launch:3", 6),
    ("cudaMemcpyAsync:6", 6), ("cudaEventRecord:1", 6), ("cudaEventQuery:2", 6),
    ("cudaStreamSynchronize:4", 6)])
def test_every_failure_ends_all_ranks_with_one_message(call, code, model, expected, tmp_path):
    folders = list(folders_of_failures(tmp_path, functools.partial(start, model), call, code))

    assert folders, f"no rank calls {call}"
    for folder in folders:
        job = start(model, folder, ranks=2)
        assert job.finish()[0] == 0, job.stderr
        assert (folder / "map.h5").read_bytes() == expected


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
    job.kill_rank(rank)

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


def test_without_a_visible_gpu_auto_takes_the_cpu_and_cuda_says_why_not(model, tmp_path):
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    job = start(model, tmp_path, ranks=1, environment=hidden)
    assert job.finish()[0] == 6, job.stderr
    message, = job.messages()
    assert "no NVIDIA GPU can be used here" in message and "CUDA_VISIBLE_DEVICES" in message
    assert not (tmp_path / "map.h5").exists()

    job = start(model, tmp_path, ranks=1, backend="auto", environment=hidden)
    assert job.finish()[0] == 0, job.stderr
    with h5py.File(tmp_path / "map.h5") as file:
        assert json.loads(file["config"][()])["backend"] == "cpu"


def test_one_visible_gpu_is_device_0(model, expected, tmp_path):
    visible = {"CUDA_VISIBLE_DEVICES": "1"}
    job = start(model, tmp_path, ranks=1, more=["--device", "1"], environment=visible)
    assert job.finish()[0] == 6, job.stderr
    assert "device 1 is not there: this process sees 1" in job.messages()[0]

    job = start(model, tmp_path, ranks=1, environment=visible)
    assert job.finish()[0] == 0, job.stderr
    assert (tmp_path / "map.h5").read_bytes() == expected

    job = start(model, tmp_path, environment=visible)  # the same one on every rank
    assert job.finish()[0] == 2, job.stderr
    assert f": {RANKS} ranks, 1 GPU;" in job.messages()[0]


def test_ranks_that_see_a_gpu_each_share_none(model, expected, tmp_path):
    each = ["sh", "-c", 'CUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_RANK exec "$@"', "sh"]
    job = start(model, tmp_path, run_by=each)

    assert job.finish()[0] == 0, job.stderr
    assert "layers: sent by rank 0 over NCCL" in job.stderr
    assert (tmp_path / "map.h5").read_bytes() == expected


@pytest.mark.parametrize("backend", ["cuda", "auto"])
def test_more_ranks_than_gpus_are_refused(backend, model, tmp_path):
    job = start(model, tmp_path, devices=2, backend=backend)

    assert job.finish()[0] == 2, job.stderr
    message, = job.messages()
    assert f": {RANKS} ranks, 2 GPUs;" in message and "--share-devices" in message, job.stderr
    assert list(tmp_path.glob("map.h5*")) == []


def bench_lines(folder, what, sizes, cublas="off", more=()):
    """The line about the machine, and the others."""
    job = Job([PROGRAM, "bench", what, "--json", "--repeats", "2", "--sizes", sizes, "--backend", "cuda",
               *more], 1, {**variables(1, folder), "MOEFY_CUBLAS": str(cublas)})
    out, job.stderr = job.process.communicate(timeout=120)

    assert job.process.returncode == 0, job.stderr
    machine, *lines = [json.loads(line) for line in out.splitlines()]
    assert machine["type"] == "machine" and machine["device"] == "simulated device"
    assert machine["cuda"] == {"driver_supports": "12.4", "runtime": "12.8"}
    assert machine["cublas"] == (None if cublas == "off" else {"file": str(cublas), "version": "13.0.2"})
    return lines


def check_spread(spread):
    assert 0 < spread["min"] <= spread["median"] <= spread["max"]


def check_goals(lines, at_most, values):
    """values: (shape, what the goal's figure should be)."""
    assert [(line["shape"], line["value"]) for line in lines] == [
        (shape, pytest.approx(value)) for shape, value in values]
    for line in lines:
        assert line["type"] == "goal" and line["at_most"] == at_most and line["value"] > 0
        assert line["met"] == (line["value"] <= at_most)


@pytest.mark.parametrize("cublas", [CUBLAS, "off"])
def test_bench_kernels_names_what_bounds_them(cublas, tmp_path):
    lines = bench_lines(tmp_path, "kernels", "2050x8/4,2050x8/65", cublas)

    kernels = ["copy of the rows to the device", "sum of the rows", "fp32 costs by own kernels", "int8 costs"]
    if cublas != "off":
        kernels.insert(3, "fp32 costs by cuBLAS")
        kernels += ["cuBLAS fp32 products in blocks", "cuBLAS fp32 products at once",
                    "cuBLAS fp32 products at once, not pedantic"]
    measured = [line for line in lines if line["type"] == "kernel"]
    assert [(line["shape"], line["kernel"]) for line in measured] == [
        (shape, kernel) for shape in ("2050x8/4", "2050x8/65") for kernel in kernels]
    for line in measured:
        check_spread(line["seconds"])
        assert line["gigabytes_per_second"] > 0
        assert ("gigaflops" in line) == (line["kernel"] not in kernels[:2])
    goals = [line for line in lines if line["type"] == "goal"]
    median = {(line["shape"], line["kernel"]): line["seconds"]["median"] for line in measured}
    compared = [("2050x8/4", "fp32 costs by own kernels", "sum of the rows")]
    if cublas == "off":
        assert [line["reason"] for line in lines if line["type"] == "not measured"] == [
            "no cuBLAS, products by own kernels"]
    else:
        bound = min(kernels[-2:], key=lambda kernel: median["2050x8/65", kernel])
        compared.append(("2050x8/65", "fp32 costs by cuBLAS", bound))
    check_goals(goals, 2, [(shape, median[shape, kernel] / median[shape, bound])
                           for shape, kernel, bound in compared])
    assert [line["figure"] for line in goals] == [f"{kernel} / {bound}" for _, kernel, bound in compared]


def test_bench_assign_on_a_gpu(tmp_path):
    lines = bench_lines(tmp_path, "assign", "300x6/5", more=["--check"])

    measured = [line for line in lines if line["type"] == "assign"]
    assert [(line["skewed"], line["warm"]) for line in measured] == [
        (False, False), (False, True), (True, False), (True, True)]
    for line in measured:
        assert line["shape"] == "300x5" and line["optimal"] and line["cost"] > 0
        check_spread(line["seconds"])
    goals = [line for line in lines if line["type"] == "goal"]
    check_goals(goals, 0.001, [("300x5", measured[1]["seconds"]["median"]),
                               ("300x5 skewed", measured[3]["seconds"]["median"])])
    assert len(goals) + len(measured) == len(lines)


def test_bench_split_counts_in_copies_of_the_rows(tmp_path):
    split, goal, *others = bench_lines(tmp_path, "split", "200x6/4", more=["--check"])

    assert not others and split["type"] == "split" and split["duality_gap"] == 0
    assert split["inertia_over_reference"] == pytest.approx(1, abs=0.05)
    check_spread(split["seconds"])
    check_spread(split["copy_seconds"])
    check_goals([goal], 40, [("200x6/4", split["seconds"]["median"] / split["copy_seconds"]["median"])])


@pytest.mark.parametrize("what, lines_a_shape", [("faster", 8), ("starts", 3)])
def test_bench_of_layers_on_a_gpu(what, lines_a_shape, tmp_path):
    lines = bench_lines(tmp_path, what, "200x6/4")

    assert len(lines) == lines_a_shape
    for line in lines:
        check_spread(line["seconds"])
        assert line["inertia"] > 0


def test_launch_test_gpu_splits_on_every_gpu(tmp_path):
    checkout, programs = tmp_path / "checkout", tmp_path / "programs" / "bin"
    shutil.copytree(ROOT / "launch", checkout / "launch")
    shutil.copytree(ROOT / "bench/common", checkout / "bench/common")
    programs.mkdir(parents=True)
    (programs / "moefy").symlink_to(PROGRAM)
    for name in ("test_kernels", "test_balance", "test_jobs"):
        (programs / name).write_text("#!/bin/sh\necho '[       OK ] Kernels.cuda (1 ms)'\n")
        (programs / name).chmod(0o755)
    job = subprocess.run([checkout / "launch/test", "--gpu", programs.parent, "--no-sanitizers"],
                         env={**os.environ, **variables(2, tmp_path), "MOEFY_CUBLAS": str(CUBLAS)},
                         capture_output=True, text=True)

    assert job.returncode == 0, job.stderr
    assert job.stdout == "11 passed, 0 failed\n", job.stderr
    log = (checkout / "build/test/gpu-whole.log").read_text()
    assert "sent by rank 0 over NCCL" in log and "; sums over NCCL" in log


def test_a_driver_that_is_too_old_is_named(model, tmp_path):
    job = start(model, tmp_path, ranks=1, environment={"MOEFY_SIMULATED_FAILURE": "cudaGetDeviceCount"})

    assert job.finish()[0] == 6, job.stderr
    assert "(the driver supports CUDA 12.4, moefy was built with 12.8)" in job.messages()[0]
    assert not (tmp_path / "map.h5").exists()


@pytest.mark.parametrize("ranks", [1, RANKS])
def test_a_cap_that_no_layer_fits_ends_the_run_before_it_begins(ranks, model, tmp_path):
    job = start(model, tmp_path, ranks=ranks, more=["--device-memory", "4K"])

    assert job.finish()[0] == 2, job.stderr
    assert len(job.messages()) == 1 and "--device-memory allows 4" in job.messages()[0], job.stderr
    assert not (tmp_path / "map.h5").exists()


def test_memory_of_a_device_is_taken_once(model, expected, tmp_path):
    job = start(model, tmp_path, environment={"MOEFY_SIMULATED_FAILURE": "growing a pool:2"})

    assert job.finish()[0] == 0, job.stderr
    assert (tmp_path / "map.h5").read_bytes() == expected


def test_a_device_without_room_for_a_layer_ends_the_run_before_it_begins(model, tmp_path):
    job = start(model, tmp_path, environment={"MOEFY_SIMULATED_FAILURE": "growing a pool:1"})

    assert job.finish()[0] == 6, job.stderr
    message, = job.messages()
    assert "memory for the largest layer: device " in message and " MiB more are needed" in message
    assert not list(tmp_path.glob("map.h5*"))


@pytest.mark.parametrize("experts, cublas, options", [
    (8, False, []), (8, False, ["--weights", "concat"]), (8, False, ["--weights", "down"]),
    (8, False, ["--shared", "2"]), (40, True, [])])
def test_plan_predicts_the_memory_of_a_gpu_within_a_quarter(experts, cublas, options, tmp_path):
    model = write_llama(tmp_path / "llama", layers=2, hidden=128, ffn=640, dtype=np.float16)
    environment = {"MOEFY_CUBLAS": str(CUBLAS) if cublas else "off"}
    plan = json.loads(run_alone("plan", model, tmp_path, experts, options, environment)[-1])
    measured = json.loads(run_alone("split", model, tmp_path, experts,
                                    [*options, "-o", tmp_path / "map.h5", "--backend", "cuda"],
                                    environment)[-1])["peak_device_memory"]

    assert measured <= plan["peak_device_memory"] <= 1.25 * measured


def run_alone(command, model, folder, experts, options, environment):
    """Lines of JSON."""
    job = Job([PROGRAM, command, model, "--experts", str(experts), "--threads", "1", "--json", *options],
              1, {**variables(1, folder), **environment})
    out, _ = job.process.communicate()
    assert job.process.returncode == 0, job.stderr
    return out.splitlines()


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


@pytest.mark.parametrize("call, code", [
    ("ncclGetUniqueId:1", 5), ("ncclCommInitRankConfig:1", 5), ("ncclReduce:1", 5), ("ncclReduce:5", 5),
    ("ncclCommGetAsyncError:6", 5), ("ncclCommFinalize:1", 5), ("ncclCommDestroy:1", 5),
    ("cudaEventRecord:2", 6), ("cudaEventQuery:3", 6), ("cudaMallocFromPoolAsync:9", 6),
    ("cudaMemsetAsync:2", 6), ("cudaStreamSynchronize:9", 6)])
def test_every_failure_of_shared_rows_ends_all_ranks_with_one_message(call, code, wide_model, tmp_path):
    start_job = functools.partial(start_shared, wide_model)

    assert list(folders_of_failures(tmp_path, start_job, call, code)), f"no rank calls {call}"


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
    job.kill_rank(rank)

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
