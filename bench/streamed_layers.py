#!/usr/bin/env python3
"""Many layers through one `moefy split`: reading and copying should hide behind the clustering.

    launch/bench streamed_layers

Writes a made-up bf16 checkpoint (--layers, --shape) so that it lies in the page cache; its gate
matrices, 2 bytes a neuron and column of every layer, take room on disk, the others are zeros, which a
split reads as well. Splits it and compares the wall time of the queue of layers with the seconds of
clustering (start, EM and certificate) of the same layers, each with nothing beside: the first one as a
run of its own, every other one as the last of a run of two, so that what a process does once counts in
both. The goal, 1.1, is one for a GPU. Besides, the ratio to the clustering within the queue itself
tells how long the queue waited. Needs nothing but Python."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench" / "common"))
from made_up_model import parse_shape, write_model  # noqa: E402

GOAL = 1.1
# Phases of a layer that are not clustering: taking its rows out of what was read, and all that is left,
# waiting for them above all.
BESIDES = ("read", "other")


def split(options, folder, layers=()):
    """The lines about the rank and about the whole of one run."""
    command = [options.program, "split", str(folder / "model"), "-o", str(folder / "map.h5"), "--experts",
               str(options.experts), "--backend", options.backend, "--force", "--json", "--quiet"]
    if layers:
        command += ["--layers", ",".join(map(str, layers))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}")
    lines = done.stdout.splitlines()
    return json.loads(lines[0]), json.loads(lines[-1])


def clustering(phases):
    return sum(seconds for phase, seconds in phases.items() if phase not in BESIDES)


def seconds_alone(options, folder):
    """Of every layer, with nothing beside: no other one is read while the last of a run is clustered."""
    for layer in range(options.layers):
        _, report = split(options, folder, range(max(layer - 1, 0), layer + 1))
        yield clustering(report["seconds_by_layer"][-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=os.environ.get("MOEFY_PROGRAM", str(ROOT / "build/release/bin/moefy")))
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--shape", type=parse_shape, default=(14336, 4096), metavar="NEURONSxCOLUMNS")
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where the checkpoint is written for as long (default: TMPDIR)")
    options = parser.parse_args()
    neurons, columns = options.shape
    runs = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = pathlib.Path(name)
        write_model(folder / "model", options.layers, neurons, columns)
        alone = list(seconds_alone(options, folder))
        for _ in range(options.repeats):
            rank, report = split(options, folder)
            queue, within = report["queue_seconds"], clustering(report["seconds"])
            runs.append({"queue_seconds": queue, "clustering_seconds": within, "phases": report["seconds"],
                         "ratio_to_clustering_within": queue / within, "ratio": queue / sum(alone)})
    ratio = statistics.median(run["ratio"] for run in runs)
    version = subprocess.run([options.program, "--version"], stdout=subprocess.PIPE, text=True).stdout
    print(json.dumps({"layers": options.layers, "shape": f"{neurons}x{columns}/{options.experts}",
                      "device": rank["backend"], "version": version.splitlines(),
                      "load_average": os.getloadavg()[0], "alone_seconds": alone, "runs": runs,
                      "goal": {"figure": "seconds of the queue / seconds of its layers clustered alone",
                               "value": ratio, "at_most": GOAL, "met": ratio <= GOAL}}, indent=1))


if __name__ == "__main__":
    main()
