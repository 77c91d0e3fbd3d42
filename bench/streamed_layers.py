#!/usr/bin/env python3
"""Many layers through one `moefy split`: reading and copying should hide behind the clustering.

    launch/bench streamed_layers

Writes a made-up bf16 checkpoint (--layers, --shape; it takes 2 bytes a neuron and column on disk), so
that it lies in the page cache, splits it, and compares the wall time of the queue of layers with the sum
of the seconds in which layers were clustered (start, EM and certificate), both from the program's own
report. The goal, 1.1, is one for a GPU. Needs nothing but Python."""

import argparse
import json
import os
import pathlib
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


def split(options, folder):
    """The report of one run: its last line."""
    command = [options.program, "split", str(folder / "model"), "-o", str(folder / "map.h5"), "--experts",
               str(options.experts), "--backend", options.backend, "--force", "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


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
        for _ in range(options.repeats):
            report = split(options, folder)
            seconds = report["seconds"]
            clustering = sum(value for phase, value in seconds.items() if phase not in BESIDES)
            runs.append({"queue_seconds": report["queue_seconds"], "clustering_seconds": clustering,
                         "phases": seconds, "ratio": report["queue_seconds"] / clustering})
    ratio = sorted(run["ratio"] for run in runs)[len(runs) // 2]
    version = subprocess.run([options.program, "--version"], stdout=subprocess.PIPE, text=True).stdout
    print(json.dumps({"layers": options.layers, "shape": f"{neurons}x{columns}/{options.experts}",
                      "backend": options.backend, "version": version.splitlines(),
                      "load_average": os.getloadavg()[0], "runs": runs,
                      "goal": {"figure": "seconds of the queue / seconds of clustering", "value": ratio,
                               "at_most": GOAL, "met": ratio <= GOAL}}, indent=1))


if __name__ == "__main__":
    main()
