#!/usr/bin/env python3
"""What `moefy recover` is worth on SmolLM2-135M-Instruct at 50 % active, as JSON lines:

    launch/bench recover                           about twenty minutes
    bench/recover.py --work FOLDER --minutes 6     texts and models stay in FOLDER

Perplexity in times dense over texts of domains that stand in no training text, as bench/quality.py
measures it, of the calibrated model before and after recovery on one thread, and of a control: a
model calibrated on as many tokens of the same texts as calibration and recovery saw together, which
tells what of the gain is only more text."""

import argparse
import json
import pathlib
import sys
import tempfile

import quality

ACTIVE = 0.5


def run(model, work, minutes, seed, threads):
    texts = work / "texts"
    if not texts.exists():
        quality.timed(sys.executable, quality.ROOT / "bench/texts/from_debian.py", texts)
    every = sorted((texts / "calibration").glob("*.txt"))
    before = f"many-domains-{ACTIVE}-{seed}"
    if not (work / before).exists():
        quality.calibrated(model, work, before, ACTIVE, seed,
                           ("--text", *every, "--tokens", quality.TOKENS))
    after = f"recovered-{seed}"
    seconds = {"recover": quality.timed(
        quality.MOEFY, "recover", work / before, "--teacher", model, "--text", *every, "-o",
        work / after, "--minutes", minutes, "--threads", threads, "--seed", seed, "--quiet")}
    record = json.loads((work / after / "moefy/manifest.json").read_text())["recovered"]
    tokens = quality.TOKENS + record["steps"] * record["tokens_a_step"]
    quality.say(f"recovered: {record['steps']} steps")
    control = f"control-{seed}"
    if not (work / control).exists():
        seconds["control"] = quality.calibrated(
            model, work, control, ACTIVE, seed, ("--text", *every, "--tokens", tokens))["calibrate"]
    rows = quality.measure(model, work, [work / name for name in (before, after, control)], texts)
    for name, row in zip(("dense", "before", "recovered", "control"), rows):
        more = {"tokens": tokens} if name == "control" else record if name == "recovered" else {}
        print(json.dumps({"configuration": name, "seed": seed, "training": more, **row}))
    print(json.dumps({"configuration": "seconds", **seconds}))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        run(quality.dense_model(), work, options.minutes, options.seed, options.threads)


if __name__ == "__main__":
    main()
