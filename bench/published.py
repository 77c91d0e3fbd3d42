#!/usr/bin/env python3
"""Balanced k-means of moefy beside the published procedure of Faster MoEfication.

    launch/bench published

The published procedure, written anew from its description: 25 iterations of FAISS' own k-means, then
100 rounds of plain distances (torch.cdist), a balanced auction, and means; the round with the lowest
sum of squared distances counts. Needs numpy, torch and faiss; on a machine with an NVIDIA GPU, torch
and faiss that can use it, it runs there (gpu=1), and moefy with it, else both run on the CPU with as
many threads (--threads). Both sides are timed in turns on the same rows, which lie in memory; seed 0
warms up and is not counted. The goal, a hundred times faster, is one for a GPU.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GOAL = 100
CANNOT_RUN_HERE = 77  # as launch/bench knows it


def auction(distances, most_rounds=1000):
    """Balanced assignment of rows to experts by the auction of the published code.

    Every expert bids for the rows it likes best, one more than it may have being the price it
    compares with; the highest bidder gets a row, and rows get dearer by what was bid. Experts keep
    what they won before by a least bid. Ends when every row is taken, which ties can prevent
    (hence `most_rounds`). Returns the expert of every row.
    """
    import torch

    likes = -distances.T.contiguous()  # [experts, rows]
    experts, rows = likes.shape
    room = rows // experts
    least_bid = max(float(likes.max() - likes.min()) / 50, 1e-4)
    price = torch.zeros(rows, device=likes.device, dtype=likes.dtype)
    value = likes.clone()
    winner = taken = None
    for _ in range(most_rounds):
        best, which = torch.topk(value, room + 1, dim=1)
        bids = torch.zeros_like(likes)
        bids.scatter_(1, which[:, :-1], best[:, :-1] - best[:, -1:] + least_bid)
        if winner is not None:
            bids[winner[taken], taken] = least_bid
        highest, winner = bids.max(dim=0)
        taken = torch.nonzero(highest > 0).squeeze(1)
        price += highest
        value = likes - price
        value[winner[taken], taken] = likes[winner[taken], taken]
        if len(taken) == rows:
            return winner, True
    return winner, False


def squared_distances(rows, centres, label):
    return float(((rows - centres[label]) ** 2).sum(dtype=rows.dtype).double())


def published(rows, experts, seed, gpu, rounds=100):
    """The whole procedure; labels of the best round and what happened."""
    import faiss
    import torch

    device = "cuda" if gpu else "cpu"
    start = time.perf_counter()
    kmeans = faiss.Kmeans(rows.shape[1], experts, niter=25, verbose=False, seed=seed, gpu=1 if gpu else False)
    kmeans.train(rows)
    started = time.perf_counter()
    x = torch.from_numpy(rows).to(device)
    centres = torch.from_numpy(kmeans.centroids.reshape(experts, -1)).to(device)
    best, best_label, best_round, unfinished = float("inf"), None, -1, 0
    for number in range(rounds):
        label, finished = auction(torch.cdist(x, centres))
        unfinished += not finished
        loss = squared_distances(x, centres, label)
        if loss < best:
            best, best_label, best_round = loss, label.clone(), number
        count = torch.bincount(label, minlength=experts).unsqueeze(1)
        centres = torch.zeros_like(centres).index_add_(0, label, x) / count
    labels = best_label.cpu().numpy()
    end = time.perf_counter()
    return labels, {"seed": seed, "seconds": end - start, "seconds_faiss": started - start,
                    "best_round": best_round, "unfinished_auctions": unfinished}


def missing_packages():
    """Names, with what is wrong where a package is there and cannot be loaded."""
    missing = []
    for name in ("numpy", "torch", "faiss"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing.append(name if error.name == name else f"{name} ({error})")
        except (ImportError, OSError) as error:
            missing.append(f"{name} ({error})")
    return missing


def missing_on_gpu():
    """What keeps the published procedure from a GPU."""
    import faiss
    import torch

    missing = []
    if not torch.cuda.is_available():
        missing.append(f"a GPU for torch {torch.__version__}"
                       + ("" if torch.version.cuda else ", which is built without CUDA"))
    if not hasattr(faiss, "StandardGpuResources"):
        missing.append(f"a faiss with GPU indexes (this is {faiss.__version__} without)")
    elif faiss.get_num_gpus() == 0:
        missing.append("a GPU for faiss")
    return missing


def say_missing(missing):
    print(f"published: {sys.executable} lacks: {'; '.join(missing)}", file=sys.stderr)
    sys.exit(CANNOT_RUN_HERE)


def data_sets(names, gpu):
    import numpy as np
    from cluster_vs_kmeans_constrained import blobs

    def uniform(rows, columns):
        return np.random.default_rng(0).random((rows, columns)).astype(np.float32)

    sets = {"uniform 6144x768/32": lambda: (uniform(6144, 768), 32),
            "near blobs 6144x768/32": lambda: (blobs(6144, 768, 32, 1), 32),
            "uniform 14336x4096/16": lambda: (uniform(14336, 4096), 16),
            "uniform 14336x4096/64": lambda: (uniform(14336, 4096), 64)}
    for name in names or (list(sets)[2:] if gpu else list(sets)[:2]):
        yield (name, *sets[name]())


def numbers_of_threads(options):
    """Variables of the libraries; cluster_vs_kmeans_constrained sets them to 1 when it is imported."""
    return dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))


def compare(name, rows, experts, options, gpu):
    import numpy as np
    from cluster_vs_kmeans_constrained import inertia

    peer, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rows.npy")
        np.save(path, rows)
        published(rows, experts, 0, gpu, rounds=1)
        for seed in range(1, options.seeds + 1):
            label, run = published(rows, experts, seed, gpu)
            run["inertia"] = inertia(rows, label, experts)
            run["sizes"] = [int(np.bincount(label).min()), int(np.bincount(label).max())]
            peer.append(run)
            command = [options.program, path, str(experts), str(options.seeds + 1),
                       "cuda" if gpu else "auto", "faiss", str(options.threads)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, **numbers_of_threads(options)})
            if done.returncode != 0:
                sys.exit(f"{' '.join(command)}: exit {done.returncode}")
            ours += [json.loads(line) for line in done.stdout.splitlines()[1:]]
    best, best_peer = (min(run["inertia"] for run in runs) for runs in (ours, peer))
    ratio = statistics.median(r["seconds"] for r in peer) / statistics.median(r["seconds"] for r in ours)
    print(f"{name:24} moefy {1e3 * statistics.median(r['seconds'] for r in ours):8.1f} ms, published "
          f"{statistics.median(r['seconds'] for r in peer):7.2f} s, ratio {ratio:6.0f}, inertia "
          f"{best:.0f} beside {best_peer:.0f}", file=sys.stderr)
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    result = {"data": name, "published": peer, "moefy": ours, "ratio": ratio,
              "total_squares": float((centred ** 2).sum())}
    if gpu:
        result["goal"] = {"figure": "published / moefy, median seconds, at no worse inertia", "value": ratio,
                          "at_least": GOAL, "inertia_no_worse": best <= best_peer,
                          "met": ratio >= GOAL and best <= best_peer}
    return result


def device_name(gpu):
    if gpu:
        import torch

        return torch.cuda.get_device_name(0)
    with open("/proc/cpuinfo") as cpuinfo:
        return next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")),
                    platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=("auto", "yes", "no"), default="auto",
                        help="auto: where torch and faiss can use one; yes: or say what is missing")
    parser.add_argument("--program", help="bench_cluster_rows; default: that of build/cuda on a GPU, else of "
                                          "build/release")
    parser.add_argument("--data", action="append", default=[], metavar="NAME",
                        help="as in the results; default: on a GPU the two large ones, else the small ones")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    os.environ.update(numbers_of_threads(options))  # before numpy, torch and faiss are imported
    missing = missing_packages() or (options.gpu == "yes" and missing_on_gpu())
    if missing:
        say_missing(missing)
    import faiss
    import torch

    torch.set_num_threads(options.threads)
    gpu = options.gpu != "no" and not missing_on_gpu()
    if not options.program:
        build = "build/cuda" if gpu else "build/release"
        options.program = os.path.join(ROOT, build, "bench/bench_cluster_rows")
    results = [compare(*data, options, gpu) for data in data_sets(options.data, gpu)]
    print(json.dumps({"device": device_name(gpu), "gpu": gpu, "threads": options.threads,
                      "faiss": faiss.__version__, "torch": torch.__version__,
                      "load_average": os.getloadavg()[0], "results": results}, indent=1))


if __name__ == "__main__":
    main()
