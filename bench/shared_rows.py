#!/usr/bin/env python3
"""One layer on one rank, and on ranks that share its rows, in turns on one machine; one thread a rank.

    launch/bench shared_rows

A random fp16 layer of the given size is split into experts by `moefy split --shard-rows RANKS`. Seconds are those
of the layer (reading, clustering, certificate, router, fingerprint), by phase as the leader saw them; peak memory is
VmHWM of each rank's process. The maps must be equal to the byte. Figures are medians of --repeats rounds.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))
from whole_program import PROGRAM, write_model  # noqa: E402

# Stands between mpirun and the program, and leaves peak memory and CPU seconds of what it started.
WATCH = """
import json, os, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1] + "/" + os.environ["OMPI_COMM_WORLD_RANK"], "w") as file:
    json.dump([1024 * usage.ru_maxrss, usage.ru_utime + usage.ru_stime], file)
sys.exit(code)
"""


def run(model, folder, experts, ranks):
    output = folder / f"{ranks}.h5"
    command = [PROGRAM, "split", model, "-o", output, "--experts", experts, "--threads", 1, "--shard-rows", ranks,
               "--reproducible", "--force", "--quiet", "--json"]
    launcher = [ROOT / "launch/mpirun", "-np", ranks, sys.executable, "-I", "-S", "-c", WATCH, folder]
    done = subprocess.run([str(word) for word in [*launcher, *command]], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    summary = json.loads(done.stdout.splitlines()[-1])
    usage = [json.loads((folder / str(rank)).read_text()) for rank in range(ranks)]
    return {"seconds": summary["busy_seconds_by_rank"][0], "phases": summary["seconds"],
            "peak_memory_by_rank": [memory for memory, _ in usage],
            "cpu_seconds_by_rank": [seconds for _, seconds in usage]}


def median_of(runs):
    """Medians, element by element, of equal structures of numbers."""
    if isinstance(runs[0], dict):
        return {key: median_of([run[key] for run in runs]) for key in runs[0]}
    if isinstance(runs[0], list):
        return [median_of(list(values)) for values in zip(*runs)]
    return statistics.median(runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=14336)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        random = np.random.default_rng(0)
        gate = random.standard_normal((options.neurons, options.hidden), dtype=np.float32) * 0.02
        model = write_model(folder / "model", [gate], np.float16)
        runs = {ranks: [] for ranks in options.ranks}
        for _ in range(options.repeats):
            for ranks, results in runs.items():
                results.append(run(model, folder, options.experts, ranks))
        maps = [(folder / f"{ranks}.h5").read_bytes() for ranks in options.ranks]
        if any(other != maps[0] for other in maps):
            sys.exit("the maps differ")
        shape = f"{options.neurons}x{options.hidden}/{options.experts}"
        figures = [{"figure": "shared_rows", "shape": shape, "ranks": ranks, **median_of(results)}
                   for ranks, results in runs.items()]
        print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
