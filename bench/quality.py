#!/usr/bin/env python3
"""Quality of converted models of SmolLM2-135M-Instruct beside the dense one, as JSON lines:

    launch/bench quality                     about an hour on two quiet cores
    bench/quality.py --work FOLDER …         keeps what it makes there, and goes on where it stopped
    … --finished                             makes nothing: the figures of what is there already

Every model is a stock class loaded from its files, in fp32; perplexity as a multiple of the dense
model's, geometric mean over texts of domains that stand in no calibration text
(bench/texts/from_debian.py makes them all). Three seeds each: they choose calibration sequences,
start centroids and sampled text. bench/common/quality_docs.py makes tables and plots of the results."""

import argparse
import json
import pathlib
import sys
import tempfile
from functools import partial

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "common"))
from measured import (MOEFY, calibration_texts, cost_of, dense_model, evaluated, is_kept, kept,  # noqa: E402
                      measurement_of, say)

SEQUENCES = 4  # of each text
TOKENS = 7168
MANY = "many domains"
RECOVERED = "recovered for 6 minutes on one core"


def name_of(configuration, active, seed):
    return f"{configuration.replace(' ', '-')}-{active}-{seed}"


def calibrated(model, work, name, active, seed, options):
    """Makes a calibrated model; what the steps took."""
    calibration = cost_of(MOEFY, "calibrate", model, "-o", work / f"{name}.h5", "--active", active,
                          "--seed", seed, "--quiet", *options)
    return {"calibrate": calibration,
            "convert": cost_of(MOEFY, "convert", model, work / f"{name}.h5", "-o", work / name,
                               "--use-refit", "--quiet", "--force")}


def recovered(model, work, start, name, seed):
    """Trains a calibrated model; what it took and how far it came."""
    cost = cost_of(MOEFY, "recover", work / start, "--teacher", model, "--text",
                   *calibration_texts(work), "-o", work / name, "--minutes", 6, "--threads", 1,
                   "--seed", seed, "--quiet")
    record = json.loads((work / name / "moefy/manifest.json").read_text())["recovered"]
    return {"recover": cost, "steps": record["steps"], "tokens_a_step": record["tokens_a_step"]}


def plans(work):
    """(configuration, active share, options of calibrate): one model a seed."""
    every = calibration_texts(work)
    handbook, = (path for path in every if path.stem == "handbook")
    for active in (0.75, 0.5, 0.25):
        yield MANY, active, ("--text", *every, "--tokens", TOKENS)
    for lists in (32, 128):
        yield (f"{MANY} in {lists} lists", 0.5,
               ("--text", *every, "--tokens", TOKENS, "--granularity", lists))
    yield "one domain", 0.5, ("--text", handbook, "--tokens", 8192)
    yield "no text", 0.5, ()


def models(model, work, seeds):
    """(configuration, active share, seed, function that makes it under a name) of each."""
    for seed in range(seeds):  # so that a run that is stopped has whole seeds
        for configuration, active, options in plans(work):
            yield configuration, active, seed, partial(calibrated, model, work, active=active, seed=seed,
                                                       options=options)
        yield RECOVERED, 0.5, seed, partial(recovered, model, work, name_of(MANY, 0.5, seed), seed=seed)


def made_models(model, work, seeds, only_measured=False):
    """name -> configuration, active share, seed, and what making it took; makes what is not there, or
    leaves out what was not measured before."""
    made = {}
    for configuration, active, seed, make in models(model, work, seeds):
        name = name_of(configuration, active, seed)
        if only_measured and not is_kept(work, measurement_of(name, SEQUENCES)):
            continue
        made[name] = {"configuration": configuration, "active": active, "seed": seed,
                      "took": kept(work, name, lambda: make(name))}
    return made


def weight_only(model, work, method):
    """16 experts by weights alone, to be measured with some of them."""
    kept(work, method, lambda: [
        cost_of(MOEFY, "split", model, "-o", work / f"{method}.h5", "--experts", 16, "--method",
                method, "--force"),
        cost_of(MOEFY, "convert", model, work / f"{method}.h5", "-o", work / method, "--top-k", 8,
                "--force")])


def print_rows(model, work, made):
    rows = evaluated(model, work, made, SEQUENCES)
    print(json.dumps({"configuration": "dense", **rows["dense"][0]}))
    for name, what in made.items():
        print(json.dumps({**what, **rows[name][0]}))


def run(model, work, seeds):
    print_rows(model, work, made_models(model, work, seeds))
    for method in ("kmeans", "random"):
        weight_only(model, work, method)
        for row in evaluated(model, work, [method], SEQUENCES, "12,4")[method]:
            print(json.dumps({"configuration": f"weights only, {method}",
                              "active": row["top_k"] / 16, "seed": 0, **row}))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="models of each kind")
    parser.add_argument("--finished", action="store_true",
                        help="the figures of what --work has, as far as it is measured")
    options = parser.parse_args()
    if options.finished and not options.work:
        parser.error("--finished is of a --work FOLDER")
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        say(f"work in {work}")
        if options.finished:
            print_rows(dense_model(), work,
                       made_models(dense_model(), work, options.seeds, only_measured=True))
        else:
            run(dense_model(), work, options.seeds)


if __name__ == "__main__":
    main()
