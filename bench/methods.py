#!/usr/bin/env python3
"""Every split method with every router that a stock host can carry, on SmolLM2-135M-Instruct, as JSON
lines: what `moefy record`, `split`, `route` and `convert` give without refit, beside the dense model.

    launch/bench methods                           one seed, about half an hour on one quiet core
    bench/methods.py --work FOLDER --seeds N       texts and models stay in FOLDER
    bench/methods.py --table RESULT.json           the same as a table for docs/quality.md

All with 28 routed and 4 shared experts (shared by recorded energy), measured as bench/quality.py does,
in stock classes at 20, 12 and 4 chosen experts: 75, 50 and 25 % of the neurons."""

import argparse
import json
import pathlib
import statistics
import sys
import tempfile

import quality

TOP_KS = (20, 12, 4)
EXPERTS, SHARED = 28, 4
TOKENS = 14336
SEQUENCES = 2  # of each text
METHODS = ("random", "contiguous", "kmeans", "coactivation", "activation", "gradient", "routed")
ROUTERS = ("centroid", "ridge")


def recordings(model, work, texts, seed):
    path = work / f"recordings-{seed}.h5"  # made once; then it is already done
    every = sorted((texts / "calibration").glob("*.txt"))
    seconds = quality.timed(quality.MOEFY, "record", model, "--text", *every, "--max-tokens", TOKENS,
                            "--seed", seed, "--clusters", EXPERTS, "--importance", "--quiet", "-o", path)
    return path, seconds


def split(model, work, recorded, method, top_k, seed):
    path = work / f"{method}-{top_k}-{seed}.h5"
    seconds = quality.timed(quality.MOEFY, "split", model, "-o", path, "--experts", EXPERTS, "--shared",
                            SHARED, "--top-k", top_k, "--method", method, "--recordings", recorded,
                            "--seed", seed, "--quiet", "--force")
    return path, seconds


def converted(model, work, recorded, split_map, router, seed):
    """A converted directory with this router, and the figures of the router itself."""
    name = f"{split_map.stem}-{router}"
    routed = work / f"{name}.h5"
    quality.timed(quality.MOEFY, "route", model, split_map, "-o", routed, "--router", router,
                  "--recordings", recorded, "--seed", seed, "--quiet", "--force")
    quality.timed(quality.MOEFY, "convert", model, routed, "-o", work / name, "--quiet", "--force")
    return work / name


def models_of_seed(model, work, texts, seed):
    """Makes all models of a seed: name of the directory -> what it is."""
    recorded, seconds = recordings(model, work, texts, seed)
    print(json.dumps({"step": "record", "seed": seed, "seconds": seconds}), flush=True)
    models = {}
    for method in METHODS:
        # Only this one depends on the number of experts that will be chosen.
        for top_k in TOP_KS if method == "routed" else TOP_KS[1:2]:
            split_map, seconds = split(model, work, recorded, method, top_k, seed)
            for router in ROUTERS:
                out = converted(model, work, recorded, split_map, router, seed)
                models[out.name] = {"method": method, "router": router, "seed": seed,
                                    "split_seconds": seconds}
            quality.say(f"{split_map.stem}: {seconds:.0f} s")
    return models


def run(model, work, seeds):
    texts = work / "texts"
    if not texts.exists():
        quality.timed(sys.executable, quality.ROOT / "bench/texts/from_debian.py", texts)
    models = {}
    for seed in range(seeds):
        models.update(models_of_seed(model, work, texts, seed))
    for routed in (False, True):
        outs = [work / name for name, what in models.items()
                if (what["method"] == "routed") == routed]
        others = "" if routed else ",".join(map(str, TOP_KS))
        rows = quality.measure(model, work, outs, texts, others, SEQUENCES)
        if not routed:
            print(json.dumps({"method": "dense", **rows[0]}), flush=True)
        for row in rows[1:]:
            print(json.dumps({**models[row["model"]], **row}), flush=True)


def table(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    groups, seconds = {}, {}
    for row in rows:
        if "router" in row:
            key = (row["method"], row["router"])
            groups.setdefault(key, {}).setdefault(row["top_k"], []).append(row["times_dense"])
            seconds.setdefault(row["method"], []).append(row["split_seconds"])
    lines = ["| split | router | 75 % | 50 % | 25 % | split takes |", "|---|---|---|---|---|---|"]
    for (method, router), found in groups.items():
        cells = [f"{statistics.mean(found[top_k]):.2f}" if top_k in found else "" for top_k in TOP_KS]
        lines.append(f"| {method} | {router} | " + " | ".join(cells)
                     + f" | {statistics.median(seconds[method]):.0f} s |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=pathlib.Path, metavar="RESULT.json")
    parser.add_argument("--work", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    options = parser.parse_args()
    if options.table:
        print(table(options.table))
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        run(quality.dense_model(), work, options.seeds)


if __name__ == "__main__":
    main()
