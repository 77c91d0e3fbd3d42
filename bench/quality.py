#!/usr/bin/env python3
"""Quality of converted models of SmolLM2-135M-Instruct beside the dense one, as JSON lines:

    launch/bench quality                     about half an hour on two cores
    bench/quality.py --work FOLDER …         keeps the models there and takes those that are there
    bench/quality.py --table RESULT.json     the same as tables for docs/quality.md

Every model is a stock class loaded from its files, in fp32; perplexity as a multiple of the dense
model's, geometric mean over texts of domains that stand in no calibration text
(bench/texts/from_debian.py makes them all). Three seeds each: they choose calibration sequences,
start centroids and sampled text."""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
MOEFY = ROOT / "launch/moefy"
ACTIVE = (0.75, 0.5, 0.25)
SEQUENCES = 4
TOKENS = 7168


def timed(*command):
    """Seconds that a command took; it must succeed."""
    begin = time.monotonic()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return time.monotonic() - begin


def say(text):
    print(text, file=sys.stderr, flush=True)


def calibrated(model, work, name, active, seed, options):
    """Calibrates and converts; what was measured on the way."""
    timings = {"calibrate": timed(MOEFY, "calibrate", model, "-o", work / f"{name}.h5", "--active",
                                  active, "--seed", seed, "--quiet", *options)}
    timings["convert"] = timed(MOEFY, "convert", model, work / f"{name}.h5", "-o", work / name,
                               "--use-refit", "--quiet")
    return timings


def plans(texts):
    """(configuration, active share, options of calibrate): one model a seed."""
    every = sorted((texts / "calibration").glob("*.txt"))
    handbook = texts / "calibration/handbook.txt"
    for active in ACTIVE:
        yield "many domains", active, ("--text", *every, "--tokens", TOKENS)
    yield "one domain", 0.5, ("--text", handbook, "--tokens", 8192)
    yield "no text", 0.5, ()


def measure(model, work, outputs, texts, top_ks="", sequences=SEQUENCES):
    """Rows of `moefy evaluate` for converted directories, the dense model's first."""
    command = [MOEFY, "evaluate", model, *outputs, "--text",
               *sorted((texts / "evaluation").glob("*.txt")), "--sequences", sequences, "--json",
               "--quiet"]
    if top_ks:
        command += ["--top-k", top_ks]
    output = subprocess.run([str(word) for word in command], check=True, capture_output=True,
                            text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def run(model, work, seeds, only_existing):
    texts = work / "texts"
    if not texts.exists():
        timed(sys.executable, ROOT / "bench/texts/from_debian.py", texts)
    rows = {}
    for configuration, active, options in plans(texts):
        for seed in range(seeds):
            name = f"{configuration.replace(' ', '-')}-{active}-{seed}"
            done = work / f"{name}.json"
            if only_existing and not done.exists():
                continue
            if not done.exists():
                done.write_text(json.dumps(calibrated(model, work, name, active, seed, options)))
            timings = json.loads(done.read_text())
            rows[name] = {"configuration": configuration, "active": active, "seed": seed,
                          "seconds": timings}
            say(f"{name}: {timings['calibrate']:.0f} s")
    for method in ("kmeans", "random"):
        if (work / method).exists():
            continue
        timed(MOEFY, "split", model, "-o", work / f"{method}.h5", "--experts", 16, "--method", method)
        timed(MOEFY, "convert", model, work / f"{method}.h5", "-o", work / method, "--top-k", 8)
    found = measure(model, work, [work / name for name in rows], texts)
    baselines = measure(model, work, [work / "kmeans", work / "random"], texts, "12,4")[1:]
    print(json.dumps({"configuration": "dense", **found[0]}))
    for row in found[1:]:
        print(json.dumps({**rows[row["model"]], **row}))
    for row in baselines:
        print(json.dumps({"configuration": f"weights only, {row['model']}",
                          "active": row["top_k"] / 16, "seed": 0, **row}))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"configuration": "peak memory of a step", "megabytes": peak // 1024}))


def table(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    dense = next(row for row in rows if row["configuration"] == "dense")
    groups = {}
    for row in rows:
        if "active" in row:
            groups.setdefault((row["configuration"], row["active"]), []).append(row)
    names = list(dense["texts"])
    lines = ["| calibration | active | times dense | spread | " + " | ".join(names)
             + " | same next token | calibrate |",
             "|---" * (6 + len(names)) + "|",
             "| dense (perplexity) | 100 % | 1 | | "
             + " | ".join(f"{dense['texts'][name]['perplexity']:.2f}" for name in names)
             + " | | |"]
    for (configuration, active), group in groups.items():
        ratios = [row["times_dense"] for row in group]
        spread = statistics.stdev(ratios) / statistics.mean(ratios) if len(ratios) > 1 else None
        cells = [configuration, f"{active:.0%}".replace("%", " %"), f"{statistics.mean(ratios):.2f}",
                 f"{spread:.1%}".replace("%", " %") if spread is not None else ""]
        cells += [f"{statistics.mean(row['texts'][name]['times_dense'] for row in group):.2f}"
                  for name in names]
        cells.append(f"{statistics.mean(row['agreement'] for row in group):.0%}".replace("%", " %"))
        seconds = [row["seconds"]["calibrate"] for row in group if "seconds" in row]
        cells.append(f"{statistics.median(seconds):.0f} s" if seconds else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def dense_model():
    """The dense checkpoint of launch/demo, made if it is not there."""
    model = ROOT / "demo/model"
    if not model.exists():
        timed(sys.executable, ROOT / "launch/demo_steps/export_model.py", model)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=pathlib.Path, metavar="RESULT.json")
    parser.add_argument("--work", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="models of each kind")
    parser.add_argument("--existing", action="store_true", help="only models that --work holds")
    options = parser.parse_args()
    if options.table:
        print(table(options.table))
        return
    model = dense_model()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        run(model, work, options.seeds, options.existing)


if __name__ == "__main__":
    main()
