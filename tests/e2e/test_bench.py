"""moefy bench: what its lines hold. Times belong to bench/results, not to tests."""


def test_starts_are_compared_with_what_becomes_of_them(moefy):
    machine, *lines = moefy.json_lines("bench", "starts", "--sizes", "300x8/4,96x5/3", "--repeats", 2)

    assert machine["type"] == "machine" and machine["bench"] == "starts"
    starts = ["faiss", "kmeans++", "random"]  # faiss-gpu needs a GPU
    assert [(line["shape"], line["init"]) for line in lines] == [
        *(("300x8/4", start) for start in starts), *(("96x5/3", start) for start in starts)]
    for line in lines:
        assert line["type"] == "start"
        for spread in (line["start_seconds"], line["seconds"]):
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]
        assert line["start_seconds"]["min"] < line["seconds"]["min"]
        assert 0 < line["inertia"] <= line["start_inertia"] * (1 + 1e-6)
