#!/usr/bin/env python3
"""Every split method with every router that a stock host can carry, on SmolLM2-135M-Instruct, as JSON
lines: what `moefy record`, `split`, `route` and `convert` give without refit, beside the dense model.

    launch/bench methods                           one seed, about two hours on one quiet core
    bench/methods.py --work FOLDER --seeds N       keeps what it makes there, and goes on where it stopped

All with 28 routed and 4 shared experts (shared by recorded energy), and what stands for published
methods with theirs, measured as bench/quality.py does, in stock classes at 75, 50 and 25 % of the
neurons.
bench/common/quality_docs.py makes tables and plots of the results."""

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "common"))
from measured import MOEFY, calibration_texts, cost_of, dense_model, evaluated, kept  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Split:
    method: str
    depends_on_top_k: bool = False
    experts: int = 28
    shared: int = 4
    stands_for: str = ""  # a published method

    @property
    def title(self):
        return self.stands_for or self.method

    def top_ks(self):
        """How many experts are chosen -> the share of the neurons that run."""
        return {round(active * (self.experts + self.shared)) - self.shared: active
                for active in (0.75, 0.5, 0.25)}


TOKENS = 14336
CLUSTERS = 28  # of the text, for the gradients; one for each expert
SPLITS = (Split("random"), Split("contiguous"), Split("kmeans"), Split("coactivation"),
          Split("activation"), Split("gradient"), Split("routed", depends_on_top_k=True),
          # MoEfication without its MLP router and CMoE without its bilinear one, which no stock class
          # has: ridge stands for what a router that was fitted could do.
          Split("kmeans", experts=8, shared=0, stands_for="MoEfication-like"),
          Split("activation", experts=7, shared=1, stands_for="CMoE-like"))
# Sequences of each text by router. What is far behind the others is looked at with the first seed alone.
ROUTERS = {"centroid": 2, "ridge": 2}
FIRST_SEED_ROUTERS = {"mean-gate": 1, "random": 1, "zero": 1}


def recordings(model, work, seed):
    path = work / f"recordings-{seed}.h5"
    cost = kept(work, f"record-{seed}", lambda: cost_of(
        MOEFY, "record", model, "--text", *calibration_texts(work), "--max-tokens", TOKENS, "--seed",
        seed, "--clusters", CLUSTERS, "--importance", "--quiet", "--force", "-o", path))
    return path, cost


def split_map(model, work, recorded, split, top_k, seed):
    path = work / f"{split.title}-{top_k}-{seed}.h5"
    cost = kept(work, f"split-{path.stem}", lambda: cost_of(
        MOEFY, "split", model, "-o", path, "--experts", split.experts, "--shared", split.shared,
        "--top-k", top_k, "--method", split.method, "--recordings", recorded, "--seed", seed, "--quiet",
        "--force"))
    return path, cost


def converted(model, work, recorded, path, router, seed):
    """A converted directory with this router; what routing took."""
    routed = work / f"{path.stem}-{router}.h5"
    cost = cost_of(MOEFY, "route", model, path, "-o", routed, "--router", router, "--recordings",
                   recorded, "--seed", seed, "--quiet", "--force")
    cost_of(MOEFY, "convert", model, routed, "-o", work / routed.stem, "--quiet", "--force")
    return cost


def rows_of_seed(model, work, seed):
    """What every model of a seed is, cost, and is worth. A converted model goes once it is measured."""
    recorded, cost = recordings(model, work, seed)
    yield {"step": "record", "seed": seed, "took": cost}
    for split in SPLITS:
        routers = ROUTERS if split.stands_for or seed > 0 else ROUTERS | FIRST_SEED_ROUTERS
        top_ks = split.top_ks()
        for top_k in top_ks if split.depends_on_top_k else list(top_ks)[1:2]:
            path, split_cost = split_map(model, work, recorded, split, top_k, seed)
            others = "" if split.depends_on_top_k else ",".join(map(str, top_ks))
            for router, sequences in routers.items():
                name = f"{path.stem}-{router}"
                route_cost = kept(work, name, lambda: converted(model, work, recorded, path, router,
                                                                seed))
                rows = evaluated(model, work, [name], sequences, others)[name]
                shutil.rmtree(work / name, ignore_errors=True)
                for row in rows:
                    yield {"method": split.title, "router": router, "seed": seed,
                           "active": top_ks[row["top_k"]],
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
