#!/usr/bin/env python3
"""Figures of the whole program, each beside what it is compared with, in turns on one machine.

    launch/bench whole_program

- split: the whole process (start, reading, clustering, certificate, writing) of a one-layer model
  against k-means-constrained on the same rows in memory, one thread each;
- ranks: 16 equal layers on one and on two ranks, one thread each; throughput is that of the queue,
  the whole process with launching is given beside it; every rank bound to a core of its own, and free,
  where the thread that reads the next layer of a single rank has the other core;
- convert: a 1 GB checkpoint on tmpfs against `cp -r --reflink=never` of it, with and without check;
- start: --help, --version, and a one-layer split of a small model.

Every time is the median of --repeats runs; peak memory is VmHWM of the largest process.
"""

import argparse
import itertools
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
from cluster_vs_kmeans_constrained import blobs, run_peer  # noqa: E402

PROGRAM = os.environ.get("MOEFY_PROGRAM", str(ROOT / "build/release/bin/moefy"))


# A process inherits the peak of the one that forks it, so a small one stands between: it starts the
# command, and prints wall seconds and the command's own peak memory.
LAUNCHER = """
import json, os, sys, time
begin = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(json.dumps([time.perf_counter() - begin, usage.ru_maxrss * 1024, status]))
"""


def timed(command):
    """Wall seconds and peak memory (bytes) of one process that must succeed."""
    words = [shutil.which(command[0]), *command[1:]]
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as output:
        subprocess.run([sys.executable, "-I", "-S", "-c", LAUNCHER, *words], stdout=output, stderr=errors, check=True)
        output.seek(0)
        seconds, memory, status = json.loads(output.read().splitlines()[-1])
        if status != 0:
            errors.seek(0)
            sys.exit(f"{' '.join(map(str, command))} failed:\n{errors.read()}")
    return seconds, memory


def median_run(command, repeats):
    runs = [timed(command) for _ in range(repeats)]
    return statistics.median(seconds for seconds, _ in runs), max(memory for _, memory in runs)


def write_model(folder, gates, dtype=np.float32):
    """A Llama checkpoint with these gate matrices and other weights of noise."""
    neurons, hidden = gates[0].shape
    random = np.random.default_rng(0)
    noise = (random.standard_normal((neurons, hidden)) * 0.02).astype(dtype)
    square = (random.standard_normal((hidden, hidden)) * 0.02).astype(dtype)
    tensors = {"model.embed_tokens.weight": noise[:64].copy(), "model.norm.weight": np.ones(hidden, dtype)}
    for layer, gate in enumerate(gates):
        prefix = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            tensors[prefix + f"self_attn.{name}_proj.weight"] = square
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[prefix + name + ".weight"] = np.ones(hidden, dtype)
        tensors[prefix + "mlp.gate_proj.weight"] = gate.astype(dtype)
        tensors[prefix + "mlp.up_proj.weight"] = noise
        tensors[prefix + "mlp.down_proj.weight"] = np.ascontiguousarray(noise.T)
    folder.mkdir(parents=True)
    save_file({name: t.copy() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    config = {
        "model_type": "llama", "hidden_size": hidden, "intermediate_size": neurons,
        "num_hidden_layers": len(gates), "hidden_act": "silu", "num_attention_heads": 8,
        "num_key_value_heads": 8, "vocab_size": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        "max_position_embeddings": 128,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def split_command(model, output, experts, *more):
    return [PROGRAM, "split", str(model), "-o", str(output), "--experts", str(experts), "--threads", "1",
            "--force", "--quiet", *more]


def split_against_peer(folder, repeats):
    shapes = ((6144, 768, 32, 1), (11008, 512, 16, 2), (14336, 512, 64, 3))
    for spread, (rows, columns, experts, seed) in itertools.product((0.35, 0.7), shapes):
        name = f"blobs {rows}x{columns}/{experts}, spread {spread}"
        data = blobs(rows, columns, experts, seed, spread)
        model = write_model(folder / f"peer-{rows}-{spread}", [data])
        peer = [run_peer(data, experts, s)["seconds"] for s in range(3)]
        seconds, memory = median_run(
            split_command(model, folder / "map.h5", experts, "--normalize", "none"), repeats)
        yield {"figure": "split", "shape": name, "seconds": seconds, "peer_seconds": peer,
               "ratio": statistics.mean(peer) / seconds, "peak_memory": memory}


def two_ranks(folder, repeats):
    model = write_model(folder / "equal", [blobs(6144, 768, 32, 10 + layer) for layer in range(16)])
    command = split_command(model, folder / "map.h5", 32)
    for binding in ("core", "none"):
        yield ranks_figure(command, binding, repeats)


def ranks_figure(command, binding, repeats):
    runs = {1: [], 2: []}
    for _ in range(repeats):
        for ranks, times in runs.items():
            begin = time.perf_counter()
            done = subprocess.run([str(ROOT / "launch/mpirun"), "--bind-to", binding, "-np", str(ranks),
                                   *command, "--json"], capture_output=True, text=True, check=True)
            whole = time.perf_counter() - begin
            times.append((json.loads(done.stdout.splitlines()[-1])["queue_seconds"], whole))

    def median(ranks, which):
        return statistics.median(run[which] for run in runs[ranks])

    return {"figure": "ranks", "layers": 16, "bound_to": binding, "queue_seconds": [median(1, 0), median(2, 0)],
           "process_seconds": [median(1, 1), median(2, 1)],
           "throughput_ratio": statistics.median(a[0] / b[0] for a, b in zip(runs[1], runs[2])),
           "process_ratio": statistics.median(a[1] / b[1] for a, b in zip(runs[1], runs[2]))}


def convert_against_copy(_, repeats):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = pathlib.Path(name)
        random = np.random.default_rng(0)
        gate = random.standard_normal((8192, 2048)).astype(np.float32)
        model = write_model(folder / "model", [gate] * 5)
        subprocess.run(split_command(model, folder / "map.h5", 16, "--method", "contiguous"), check=True,
                       stdout=subprocess.DEVNULL)
        base = [PROGRAM, "convert", str(model), str(folder / "map.h5"), "-o", str(folder / "out"), "--quiet"]
        copy, plain, checked, memory = [], [], [], 0
        for _ in range(repeats):
            copy.append(timed(["cp", "-r", "--reflink=never", str(model), str(folder / "copy")])[0])
            shutil.rmtree(folder / "copy")
            for times, more in ((plain, ["--no-verify"]), (checked, [])):
                seconds, peak = timed(base + more)
                shutil.rmtree(folder / "out")
                times.append(seconds)
                memory = max(memory, peak)
        size = (model / "model.safetensors").stat().st_size
        yield {"figure": "convert", "bytes": size, "layer_bytes": 3 * gate.nbytes,
               "copy_seconds": statistics.median(copy), "convert_seconds": statistics.median(plain),
               "convert_and_check_seconds": statistics.median(checked),
               "convert_over_copy": statistics.median(b / a for a, b in zip(copy, plain)),
               "check_over_copy": statistics.median((c - b) / a for a, b, c in zip(copy, plain, checked)),
               "peak_memory": memory}


def starts(folder, repeats):
    small = write_model(folder / "small", [blobs(1536, 576, 16, 4)])
    for name, command in (("--help", [PROGRAM, "--help"]), ("--version", [PROGRAM, "--version"]),
                          ("one-layer split", split_command(small, folder / "map.h5", 16))):
        seconds, memory = median_run(command, max(repeats, 9))
        yield {"figure": "start", "command": name, "seconds": seconds, "peak_memory": memory}


FIGURES = {"start": starts, "ranks": two_ranks, "convert": convert_against_copy, "split": split_against_peer}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES))
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    print(json.dumps({"figure": "machine", "cpus": os.cpu_count(), "load_average": os.getloadavg()[0],
                      "version": version.splitlines()}), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for name in options.figures:
            for figure in FIGURES[name](folder, options.repeats):
                print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()
