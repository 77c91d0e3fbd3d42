"""moefy.balanced_assign and moefy.balanced_kmeans: worked examples, all assignments of small problems,
and what a certificate promises."""

import itertools

import numpy as np
import pytest

import moefy
from moefy.errors import MoefyError, UsageError


def squares(points, centres):
    return (np.subtract.outer(np.array(points), np.array(centres))) ** 2


def digits(labels):
    return "".join(map(str, labels))


def cheapest(cost, lo, hi):
    """(cost, lexicographically smallest labels) of all assignments within the bounds."""
    rows, sites = cost.shape
    best = None
    for labels in itertools.product(range(sites), repeat=rows):
        sizes = np.bincount(labels, minlength=sites)
        if (sizes >= lo).all() and (sizes <= hi).all():
            total = sum(int(cost[row, site]) for row, site in enumerate(labels))
            best = min(best or (total, labels), (total, labels))
    return best


def dual_value(cost, lo, hi, prices):
    return int((cost + prices).min(1).sum() - (prices * np.where(prices > 0, hi, lo)).sum())


@pytest.mark.parametrize("points, centres, lo, hi, labels, cost, prices", [
    ([0, 1, 2, 3, 10, 11], [1, 10], 3, 3, "000111", 52, [45, 0]),
    ([0, 1, 2, 3, 10, 11], [1, 10], [2, 4], [2, 4], "001111", 115, None),
    ([-1, 0, 1, 2, 9, 11], [0, 10, 20], 2, 2, "001122", 348, [200, 120, 0]),
    ([0, 1, 2, 10], [1, 10], [1, 1], [3, 3], "0001", 2, None),
    ([0, 1, 2, 10], [1, 10], [1, 2], [3, 3], "0011", 65, [0, -63])])
def test_worked_examples(points, centres, lo, hi, labels, cost, prices):
    found = moefy.balanced_assign(squares(points, centres), lo, hi)
    assert digits(found.labels) == labels and found.cost == cost and found.gap == 0
    if prices is not None:
        assert found.prices.tolist() == prices


def test_the_golden_table():
    i, j = np.mgrid[:40, :5]
    cost = ((i + 1) * (j + 3) * 17 + 5 * i**2 + 11 * j**2) % 97
    assert moefy.balanced_assign(cost, 0, 40).cost == 501
    found = moefy.balanced_assign(cost, 8, 8)
    assert found.cost == 520
    assert digits(found.labels) == "4024323401223040321041013103223110134424"
    sizes = [4, 6, 8, 10, 12]
    found = moefy.balanced_assign(cost, sizes, sizes)
    assert found.cost == 542 and ((np.arange(40) + 1) * (found.labels + 1)).sum() == 2865
    assert moefy.balanced_assign(cost, 6, 10).prices.tolist() == [0, -4, 0, 0, 0]


@pytest.mark.parametrize("seed", range(20))
def test_small_problems_have_the_optimum_of_all_assignments(seed):
    rng = np.random.default_rng(seed)
    rows, sites = int(rng.integers(1, 8)), int(rng.integers(1, 4))
    cost = rng.integers(-3, 4, (rows, sites))
    lo = rng.multinomial(rng.integers(0, rows + 1), np.ones(sites) / sites)
    hi = lo + rng.multinomial(rows - lo.sum() + rng.integers(0, 3), np.ones(sites) / sites)
    found = moefy.balanced_assign(cost, lo, hi, prices=rng.integers(-5, 6, sites))
    assert (found.cost, tuple(found.labels)) == cheapest(cost, lo, hi)
    assert dual_value(cost, lo, hi, found.prices) == found.cost


def test_costs_may_be_as_large_as_they_say():
    cost = np.array([[2**45, -2**45]] * 4)
    found = moefy.balanced_assign(cost, 2, 2)
    assert digits(found.labels) == "0011" and found.cost == 0
    assert moefy.balanced_assign(cost, 0, 4).cost == -2**47
    with pytest.raises(MoefyError, match="scale them down"):
        moefy.balanced_assign(2 * cost, 2, 2)


@pytest.mark.parametrize("cost, lo, hi, prices, message", [
    ([[0.5, 1.0]], 0, 1, None, "integers"), ([1, 2], 0, 1, None, "rows, sites"),
    ([[1, 2]], 1, 1, None, "1"), ([[1, 2]], 0, 0, None, "0"), ([[1, 2]], 2, 1, None, "lo <= hi"),
    ([[1, 2]], 0.5, 1, None, "lo must be integers"), ([[1, 2]], 0, 1, [0], "1 prices for 2 sites")])
def test_problems_without_a_solution_are_refused(cost, lo, hi, prices, message):
    with pytest.raises(MoefyError, match=message):
        moefy.balanced_assign(np.array(cost), lo, hi, prices)


def test_clusters_are_equal_and_each_assignment_is_optimal():
    x = np.random.default_rng(5).normal(size=(45, 3))
    found = moefy.balanced_kmeans(x, 4, seed=3)
    lo, hi = np.full(4, 11), np.full(4, 12)
    assert sorted(np.bincount(found.labels)) == [11, 11, 11, 12]
    means = np.stack([x[found.labels == cluster].mean(0) for cluster in range(4)])
    np.testing.assert_allclose(found.centroids, means, rtol=1e-5, atol=1e-6)
    distances = ((x[:, None] - means) ** 2).sum(2)
    own = distances[np.arange(45), found.labels].sum()
    assert found.inertia == pytest.approx(own, rel=1e-5)
    assert found.gap == 0
    # With these centroids no other balanced assignment is better.
    rounded = np.rint(distances * 2**20).astype(np.int64)
    best = moefy.balanced_assign(rounded, lo, hi)
    assert dual_value(rounded, lo, hi, best.prices) == best.cost
    assert own == pytest.approx(best.cost / 2**20, rel=1e-4)


def test_clusters_keep_to_given_sizes_and_do_not_depend_on_threads():
    x = np.random.default_rng(6).normal(size=(600, 8))
    lo, hi = [100, 50, 0, 0], [100, 60, 600, 10]
    one = moefy.balanced_kmeans(x, 4, lo, hi, seed=1)
    sizes = np.bincount(one.labels, minlength=4)
    assert (sizes >= lo).all() and (sizes <= hi).all()
    two = moefy.balanced_kmeans(x, 4, lo, hi, seed=1, threads=2)
    assert (one.labels == two.labels).all() and (one.centroids == two.centroids).all()
    more = moefy.balanced_kmeans(x, 4, lo, hi, seed=1, restarts=4)
    assert more.inertia <= one.inertia


@pytest.mark.parametrize("options, message", [
    ({"k": 0}, "clusters"), ({"k": 7}, "clusters"), ({"k": 2, "start": "magic"}, "kmeans"),
    ({"k": 2, "start": "faiss-gpu"}, "faiss-gpu"), ({"k": 2, "lo": 4, "hi": 4}, "6"), ({"k": 2, "restarts": 0}, "restarts")])
def test_clusterings_that_cannot_be_are_refused(options, message):
    with pytest.raises(MoefyError, match=message):
        moefy.balanced_kmeans(np.zeros((6, 2)), **options)
    with pytest.raises(UsageError, match="x must be"):
        moefy.balanced_kmeans(np.zeros(6), 2)


def test_rows_that_are_no_numbers_are_refused():
    x = np.zeros((6, 2))
    x[4, 1] = np.nan
    with pytest.raises(MoefyError, match="4"):
        moefy.balanced_kmeans(x, 2)
