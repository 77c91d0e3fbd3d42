#!/usr/bin/env python3
"""What the whole recipe takes on SmolLM2-135M-Instruct at 50 % active, as JSON lines: seconds from start
to map of `moefy calibrate`, and of `moefy convert --use-refit`, with texts of seven domains, with one text,
and without any (the model writes it). All CPUs; medians of --repeats runs, in turns.

    launch/bench recipe"""

import argparse
import json
import pathlib
import statistics
import tempfile

import quality  # also makes bench/common known
from measured import calibration_texts, dense_model

ACTIVE = 0.5


def median_of(costs):
    """Of each figure; the largest memory."""
    return {name: max(values) if name == "megabytes" else statistics.median(values)
            for name, values in ((name, [cost[name] for cost in costs]) for name in costs[0])}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        every = calibration_texts(work)
        configurations = {quality.MANY: ("--text", *every, "--tokens", quality.TOKENS),
                          "one domain": ("--text", every[0]), "no text": ()}
        runs = {name: [] for name in configurations}
        for number in range(options.repeats):
            for name, arguments in configurations.items():
                runs[name].append(quality.calibrated(dense_model(), work, f"{number}-{name}", ACTIVE, number,
                                                     arguments))
        for name, took in runs.items():
            steps = {step: median_of([run[step] for run in took]) for step in took[0]}
            print(json.dumps({"configuration": name, "runs": len(took), **steps}))


if __name__ == "__main__":
    main()
