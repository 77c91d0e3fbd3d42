#!/usr/bin/env python3
"""Balanced k-means of moefy beside k-means-constrained: the same rows, one thread each, one machine.

    launch/bench cluster_vs_kmeans_constrained

Needs numpy and k-means-constrained. Data sets: Gaussian blobs of very unequal size (weights
1/(1 + j), centres 0.35 apart in every coordinate, unit noise), uniform rows, six weight matrices of
the demo's model if it is there, and any .npy matrices given as --matrix FILE/EXPERTS. Both sides are timed in turn, data set by data set, so that a busy
machine slows both; moefy's time is the median over seeds, every seed run --repeats times.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
for name in THREADS:  # before numpy is imported
    os.environ[name] = "1"

import numpy as np  # noqa: E402


def blobs(rows, columns, experts, seed, spread=0.35):
    """Gaussian blobs of very unequal size; `spread`: how far apart, as a multiple of the noise."""
    random = np.random.default_rng(seed)
    weights = 1.0 / (1 + np.arange(experts))
    centres = spread * random.standard_normal((experts, columns)).astype(np.float32)
    label = random.choice(experts, rows, p=weights / weights.sum())
    return centres[label] + random.standard_normal((rows, columns)).astype(np.float32)


def demo_matrices():
    """Gate and up rows of the first, a middle and the last layer of SmolLM2 (launch/demo)."""
    path = os.path.join(ROOT, "demo/model/model.safetensors")
    if not os.path.exists(path):
        return
    from safetensors import safe_open

    with safe_open(path, framework="pt") as model:
        for layer in (0, 15, 29):
            for name in ("gate", "up"):
                tensor = model.get_tensor(f"model.layers.{layer}.mlp.{name}_proj.weight")
                yield f"SmolLM2 layer {layer} {name}", tensor.float().numpy(), 16


def data_sets(matrices):
    for name, spread in (("near blobs", 0.35), ("far blobs", 0.7)):
        for rows, columns, experts, seed in ((6144, 768, 32, 1), (11008, 512, 16, 2), (14336, 512, 64, 3)):
            yield f"{name} {rows}x{columns}/{experts}", blobs(rows, columns, experts, seed, spread), experts
    yield "uniform 6144x768/32", np.random.default_rng(0).random((6144, 768)).astype(np.float32), 32
    yield from demo_matrices()
    for matrix in matrices:
        path, experts = matrix.rsplit("/", 1)
        rows = np.ascontiguousarray(np.load(path), dtype=np.float32)
        yield f"{os.path.basename(path)} {rows.shape[0]}x{rows.shape[1]}/{experts}", rows, int(experts)


def inertia(rows, label, experts):
    total = 0.0
    for expert in range(experts):
        members = rows[label == expert].astype(np.float64)
        total += ((members - members.mean(axis=0)) ** 2).sum()
    return total


def run_peer(rows, experts, seed):
    from k_means_constrained import KMeansConstrained

    size = rows.shape[0] // experts
    model = KMeansConstrained(experts, size_min=size, size_max=-(-rows.shape[0] // experts),
                              n_init=1, max_iter=100, random_state=seed)
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(rows)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"seed": seed, "seconds": wall, "cpu_seconds": cpu,
            "inertia": inertia(rows, model.labels_, experts)}


def run_moefy(program, path, experts, seeds, instruction_set, repeats):
    runs = []
    for _ in range(repeats):
        done = subprocess.run([program, path, str(experts), str(seeds), instruction_set],
                              check=True, capture_output=True, text=True)
        runs += [json.loads(line) for line in done.stdout.splitlines()]
    return runs


def compare(name, rows, experts, options):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows.npy")
        np.save(path, rows)
        ours = {kind: run_moefy(options.program, path, experts, options.seeds, kind, options.repeats)
                for kind in options.instruction_sets}
    peer = [run_peer(rows, experts, seed) for seed in range(options.seeds)]
    result = {"data": name, "peer": peer, "moefy": ours, "ratio": {}, "cpu_ratio": {}}
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    result["total_squares"] = float((centred ** 2).sum())
    peer_best = min(run["inertia"] for run in peer)
    for kind, runs in ours.items():
        for key, ratio in (("seconds", "ratio"), ("cpu_seconds", "cpu_ratio")):
            mean = statistics.mean(run[key] for run in peer)
            result[ratio][kind] = mean / statistics.median(run[key] for run in runs)
        best = min(run["inertia"] for run in runs)
        print(f"{name:32} {kind:12} {1e3 * statistics.median(r['seconds'] for r in runs):8.1f} ms"
              f"  peer {statistics.mean(r['seconds'] for r in peer):7.2f} s"
              f"  ratio {result['ratio'][kind]:6.1f} (CPU time {result['cpu_ratio'][kind]:6.1f})"
              f"  best J {100 * (best / peer_best - 1):+.3f} %", file=sys.stderr)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.path.join(ROOT, "build/release/bench/bench_cluster_rows"))
    parser.add_argument("--matrix", action="append", default=[], metavar="FILE/EXPERTS")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--instruction-sets", nargs="+", default=["auto", "avx2"])
    parser.add_argument("--cpu", type=int, default=0, help="both sides are pinned to this CPU")
    parser.add_argument("-o", "--output")
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.cpu})
    with open("/proc/cpuinfo") as cpuinfo:
        cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")),
                   platform.machine())
    report = {"cpu": cpu, "load_average": os.getloadavg()[0],
              "results": [compare(*data, options) for data in data_sets(options.matrix)]}
    text = json.dumps(report, indent=1)
    if options.output:
        with open(options.output, "w") as file:
            file.write(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
