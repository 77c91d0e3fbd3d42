"""Exact balanced assignment and clustering of NumPy arrays, as `moefy split` computes them."""

from typing import NamedTuple

import numpy as np

from .errors import UsageError
from .models import native


class Assignment(NamedTuple):
    """An optimal assignment with its proof: the sum over rows of the least cost_ij + prices_j, less the
    sum over sites of prices_j times hi_j (lo_j where the price is negative), is a lower bound of every
    assignment's cost; `gap` is what `cost` lies above it, always 0."""

    labels: np.ndarray  # int32 [rows]
    prices: np.ndarray  # int64 [sites], added to the costs of a site
    cost: int
    gap: int


class Clusters(NamedTuple):
    labels: np.ndarray  # int32 [rows]
    centroids: np.ndarray  # float32 [k, dim], means of these labels
    inertia: float  # sum of squared distances
    gap: float  # relative duality gap of the last assignment; 0: proved optimal for its centroids


def _bounds(sizes, count, name):
    sizes = np.broadcast_to(np.asarray(sizes), (count,))
    if not np.issubdtype(sizes.dtype, np.integer):
        raise UsageError(f"{name} must be integers, not {sizes.dtype}")
    return sizes.tolist()


def balanced_assign(cost, lo, hi, prices=None):
    """The cheapest assignment of every row to one site with lo <= rows of a site <= hi.

    cost: integers [rows, sites] that differ by at most 2**46 within a row (scale and round real costs);
    lo, hi: integers, one a site or one for all; prices [sites]: a start, for a similar problem solved before. Of several
    optima the lexicographically smallest labels. Errors: UsageError, or _moefy.Error's message as
    MoefyError for bounds that cannot be met and costs that are too large."""
    import _moefy

    cost = np.asarray(cost)
    if cost.ndim != 2 or not np.issubdtype(cost.dtype, np.integer):
        raise UsageError(f"cost must be integers [rows, sites], not {cost.dtype} {list(cost.shape)}")
    sites = cost.shape[1]
    start = [] if prices is None else np.asarray(prices).tolist()
    if start and len(start) != sites:
        raise UsageError(f"{len(start)} prices for {sites} sites")
    found = native(_moefy.balanced_assign, np.ascontiguousarray(cost, np.int64),
                   _bounds(lo, sites, "lo"), _bounds(hi, sites, "hi"), start)
    return Assignment(**found)


def balanced_kmeans(x, k, lo=None, hi=None, *, seed=0, restarts=1, start="kmeans++",
                    max_iterations=300, threads=1):
    """Clusters of equal size (they differ by one where k does not divide the rows), or of lo to hi rows.

    x: real [rows, dim]; lo, hi: integers, one a cluster or one for all; start: kmeans++, faiss or
    random; the best of `restarts` is kept. Every assignment is exact, the same result for any number of
    threads. Errors as balanced_assign, and InputError's message for NaN or infinity."""
    import _moefy

    x = np.asarray(x)
    if x.ndim != 2:
        raise UsageError(f"x must be [rows, dim], not {list(x.shape)}")
    if not 1 <= k <= len(x):
        raise UsageError(f"k = {k} clusters of {len(x)} rows")
    if restarts < 1 or max_iterations < 1 or threads < 1:
        raise UsageError("restarts, max_iterations and threads must be at least 1")
    lower = _bounds(len(x) // k if lo is None else lo, k, "lo")
    upper = _bounds(-(-len(x) // k) if hi is None else hi, k, "hi")
    found = native(_moefy.balanced_kmeans, np.ascontiguousarray(x, np.float32), lower, upper, seed,
                   restarts, start, max_iterations, threads)
    return Clusters(**found)
