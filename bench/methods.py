#!/usr/bin/env python3
"""Every split method with every router that a stock host can carry, on SmolLM2-135M-Instruct, as JSON
lines: what `moefy record`, `split`, `route` and `convert` give without refit, beside the dense model.

    launch/bench methods                           one seed, about an hour on one quiet core
    bench/methods.py --work FOLDER --seeds N       keeps what it makes there, and goes on where it stopped

All with 28 routed and 4 shared experts (shared by recorded energy), measured as bench/quality.py does,
in stock classes at 20, 12 and 4 chosen experts: 75, 50 and 25 % of the neurons.
bench/common/quality_docs.py makes tables and plots of the results."""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "common"))
from measured import MOEFY, calibration_texts, cost_of, dense_model, evaluated, kept  # noqa: E402

TOP_KS = (20, 12, 4)
EXPERTS, SHARED = 28, 4
TOKENS = 14336
METHODS = ("random", "contiguous", "kmeans", "coactivation", "activation", "gradient", "routed")
# Sequences of each text by router. What is far behind the others is looked at with the first seed alone.
ROUTERS = {"centroid": 2, "ridge": 2}
FIRST_SEED_ROUTERS = {"mean-gate": 1, "random": 1, "zero": 1}


def recordings(model, work, seed):
    path = work / f"recordings-{seed}.h5"
    cost = kept(work, f"record-{seed}", lambda: cost_of(
        MOEFY, "record", model, "--text", *calibration_texts(work), "--max-tokens", TOKENS, "--seed",
        seed, "--clusters", EXPERTS, "--importance", "--quiet", "--force", "-o", path))
    return path, cost


def split(model, work, recorded, method, top_k, seed):
    path = work / f"{method}-{top_k}-{seed}.h5"
    cost = kept(work, f"split-{path.stem}", lambda: cost_of(
        MOEFY, "split", model, "-o", path, "--experts", EXPERTS, "--shared", SHARED, "--top-k", top_k,
        "--method", method, "--recordings", recorded, "--seed", seed, "--quiet", "--force"))
    return path, cost


def converted(model, work, recorded, split_map, router, seed):
    """A converted directory with this router; what routing took."""
    routed = work / f"{split_map.stem}-{router}.h5"
    cost = cost_of(MOEFY, "route", model, split_map, "-o", routed, "--router", router, "--recordings",
                   recorded, "--seed", seed, "--quiet", "--force")
    cost_of(MOEFY, "convert", model, routed, "-o", work / routed.stem, "--quiet", "--force")
    return cost


def rows_of_seed(model, work, seed):
    """What every model of a seed is, cost, and is worth. A converted model goes once it is measured."""
    recorded, cost = recordings(model, work, seed)
    yield {"step": "record", "seed": seed, "took": cost}
    routers = ROUTERS | FIRST_SEED_ROUTERS if seed == 0 else ROUTERS
    for method in METHODS:
        # Only this one depends on the number of experts that will be chosen.
        for top_k in TOP_KS if method == "routed" else TOP_KS[1:2]:
            split_map, split_cost = split(model, work, recorded, method, top_k, seed)
            others = "" if method == "routed" else ",".join(map(str, TOP_KS))
            for router, sequences in routers.items():
                name = f"{split_map.stem}-{router}"
                route_cost = kept(work, name, lambda: converted(model, work, recorded, split_map,
                                                                router, seed))
                rows = evaluated(model, work, [name], sequences, others)[name]
                shutil.rmtree(work / name, ignore_errors=True)
                for row in rows:
                    yield {"method": method, "router": router, "seed": seed,
                           "took": {"split": split_cost, "route": route_cost}, **row}


def run(model, work, seeds):
    print(json.dumps({"method": "dense", **evaluated(model, work, [], 2)["dense"][0]}), flush=True)
    for seed in range(seeds):
        for row in rows_of_seed(model, work, seed):
            print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        run(dense_model(), work, options.seeds)


if __name__ == "__main__":
    main()
