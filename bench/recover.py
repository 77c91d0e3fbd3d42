#!/usr/bin/env python3
"""What `moefy recover` is worth on SmolLM2-135M-Instruct at 50 % active, as JSON lines:

    launch/bench recover                           about twenty minutes a seed
    bench/recover.py --work FOLDER --seeds N       keeps what it makes there, and goes on where it stopped

Perplexity in times dense, as bench/quality.py measures it, of the calibrated model before and after
recovery on one thread, and of a control: a model calibrated on as many tokens of the same texts as
calibration and recovery saw together, which tells what of the gain is only more text."""

import argparse
import json
import pathlib
import tempfile

import quality  # also makes bench/common known
from measured import calibration_texts, dense_model, evaluated, kept

ACTIVE = 0.5


def run_seed(model, work, seed):
    before = quality.name_of(quality.MANY, ACTIVE, seed)
    after = quality.name_of(quality.RECOVERED, ACTIVE, seed)
    control = f"control-{seed}"
    texts = ("--text", *calibration_texts(work))
    took = {before: kept(work, before, lambda: quality.calibrated(
        model, work, before, ACTIVE, seed, (*texts, "--tokens", quality.TOKENS)))}
    took[after] = kept(work, after, lambda: quality.recovered(model, work, before, after, seed))
    tokens = quality.TOKENS + took[after]["steps"] * took[after]["tokens_a_step"]
    took[control] = kept(work, control, lambda: quality.calibrated(
        model, work, control, ACTIVE, seed, (*texts, "--tokens", tokens)))
    rows = evaluated(model, work, took, quality.SEQUENCES)
    if seed == 0:
        print(json.dumps({"configuration": "dense", **rows["dense"][0]}))
    for configuration, name in (("before", before), ("recovered", after), ("control", control)):
        print(json.dumps({"configuration": configuration, "seed": seed, "took": took[name],
                          **({"tokens": tokens} if name == control else {}), **rows[name][0]}))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for seed in range(options.seeds):
            run_seed(dense_model(), work, seed)


if __name__ == "__main__":
    main()
