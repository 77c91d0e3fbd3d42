"""split and route with recordings: every method and router on the same tokens, whatever runs them,
and recordings that do not fit."""

import json
import shutil

import h5py
import numpy as np
import pytest

from conftest import write_llama
from recorded import write_recordings

TOKENS = 4096 + 300  # more than one block of sums
METHODS = ["kmeans", "activation", "coactivation", "gradient", "routed"]


@pytest.fixture
def recorded(moefy, llama, tmp_path):
    return write_recordings(moefy, llama, tmp_path / "rec.h5", TOKENS)


def split(moefy, model, output, method, *more, **options):
    return moefy("split", model, "-o", output, "--experts", 4, "--shared", 1, "--top-k", 2,
                 "--method", method, "--recordings", "rec.h5", "--reproducible", *more, **options)


def means(moefy, *arguments):
    line, = moefy.json_lines("route", *arguments, "--evaluate", "--recordings", "rec.h5")
    return {name.removeprefix("router_"): value for name, value in line["mean"].items()}


@pytest.mark.parametrize("method", METHODS)
def test_ranks_threads_and_feed_do_not_change_a_byte(moefy, llama, recorded, tmp_path, method):
    split(moefy, llama, "alone.h5", method, "--threads", 1)
    split(moefy, llama, "two.h5", method, "--threads", 2, ranks=2)
    split(moefy, llama, "three.h5", method, "--feed", "coordinator", ranks=3)

    alone = (tmp_path / "alone.h5").read_bytes()
    assert (tmp_path / "two.h5").read_bytes() == alone
    assert (tmp_path / "three.h5").read_bytes() == alone
    with h5py.File(tmp_path / "alone.h5") as file:
        for layer in file["layers"].values():
            labels = layer["labels"][:]
            assert np.bincount(labels + 1, minlength=5).max() <= 20
            assert np.bincount(labels + 1, minlength=5).min() >= 19
            assert layer.attrs["method"] == method


def test_the_most_energetic_neurons_are_shared(moefy, llama, recorded, tmp_path):
    from safetensors.numpy import load_file

    split(moefy, llama, "map.h5", "kmeans")

    weights = load_file(llama / "model.safetensors")
    prefix = "model.layers.1.mlp."
    with h5py.File(tmp_path / "rec.h5") as file:
        x = file["layers/00001/x"][:].astype(np.float64)
    gate = x @ weights[prefix + "gate_proj.weight"].T
    hidden = gate / (1 + np.exp(-gate)) * (x @ weights[prefix + "up_proj.weight"].T)
    energy = (hidden**2).sum(0) * (weights[prefix + "down_proj.weight"] ** 2).sum(0)
    with h5py.File(tmp_path / "map.h5") as file:
        shared = np.flatnonzero(file["layers/00001/labels"][:] == -1)
    assert set(shared) == set(np.argsort(-energy)[: len(shared)])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "bfloat16"])
def test_every_type_of_recorded_values_is_read(moefy, llama, tmp_path, dtype):
    write_recordings(moefy, llama, tmp_path / "rec.h5", TOKENS, dtype)
    split(moefy, llama, "map.h5", "routed")
    found = means(moefy, llama, "map.h5")
    assert found["output_error_oracle"] <= found["output_error"] < found["output_error_random"]


@pytest.mark.parametrize("router", ["ridge", "centroid", "mean-gate", "random", "zero", "mlp",
                                    "mlp-topk"])
def test_every_router_is_the_same_on_any_ranks(moefy, llama, recorded, tmp_path, router):
    split(moefy, llama, "map.h5", "activation")
    options = ("--router", router, "--recordings", "rec.h5", "--evaluate", "--epochs", 3)
    for ranks in (1, 2, 3):
        moefy("route", llama, "map.h5", "-o", f"{ranks}.h5", *options, ranks=ranks)

    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "3.h5").read_bytes()
    with h5py.File(tmp_path / "1.h5") as file:
        layer = file["layers/00002"]
        assert layer["router"].attrs["kind"] == router
        assert 0 < layer["stats/metrics"].attrs["router_captured_mass"] <= 1
        if router.startswith("mlp"):
            assert layer["router/0/weight"].shape == (4, 32)
            assert layer["router/1/weight"].shape == (4, 4)


def test_ridge_solves_the_normal_equations(moefy, llama, recorded, tmp_path):
    from safetensors.numpy import load_file

    split(moefy, llama, "map.h5", "kmeans")
    moefy("route", llama, "map.h5", "--router", "ridge", "--recordings", "rec.h5")

    weights = {name: value.astype(np.float64)
               for name, value in load_file(llama / "model.safetensors").items()}
    prefix = "model.layers.0.mlp."
    with h5py.File(tmp_path / "rec.h5") as file:
        x = file["layers/00000/x"][:].astype(np.float64)
    gate = x @ weights[prefix + "gate_proj.weight"].T
    hidden = gate / (1 + np.exp(-gate)) * (x @ weights[prefix + "up_proj.weight"].T)
    with h5py.File(tmp_path / "map.h5") as file:
        layer = file["layers/00000"]
        labels, found = layer["labels"][:], layer["router/weight"][:]
        spread = layer["router"].attrs["logit_std"]
    down = weights[prefix + "down_proj.weight"].T
    norms = np.stack([np.linalg.norm(hidden[:, labels == e] @ down[labels == e], axis=1)
                      for e in range(4)], 1)
    gram = x.T @ x
    expected = np.linalg.solve(gram + np.trace(gram) / 32 * np.eye(32), x.T @ norms).T
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(spread, np.sqrt(np.mean((x @ expected.T) ** 2)), rtol=1e-3)


def test_routers_are_measured_without_being_changed(moefy, llama, recorded, tmp_path):
    split(moefy, llama, "map.h5", "routed")
    with h5py.File(tmp_path / "map.h5") as file:
        before = file["layers/00001/router/weight"][:]
    found = means(moefy, llama, "map.h5", "--top-k", 4)
    assert found["captured_mass"] == pytest.approx(1) and found["output_error"] == 0
    with h5py.File(tmp_path / "map.h5") as file:
        np.testing.assert_array_equal(file["layers/00001/router/weight"][:], before)
        assert "router_recall" in file["layers/00001/stats/metrics"].attrs
        assert "lost_energy_last" in file["layers/00001/stats/metrics"].attrs


def test_a_routed_map_converts_and_verifies(moefy, llama, recorded):
    split(moefy, llama, "map.h5", "activation")
    moefy("route", llama, "map.h5", "--router", "ridge", "--recordings", "rec.h5")
    moefy("convert", llama, "map.h5", "-o", "moe")
    moefy("verify", llama, "moe")


def test_a_router_of_distances_is_measured_and_not_converted(moefy, llama, recorded, tmp_path):
    split(moefy, llama, "map.h5", "kmeans")
    options = ("--router", "centroid", "--recordings", "rec.h5", "--evaluate")
    moefy("route", llama, "map.h5", "-o", "cosine.h5", *options)
    moefy("route", llama, "map.h5", "-o", "near.h5", *options, "--similarity", "euclidean")

    with h5py.File(tmp_path / "near.h5") as near, h5py.File(tmp_path / "cosine.h5") as cosine:
        means, directions = (file["layers/00000/router/weight"][:] for file in (near, cosine))
        assert near["layers/00000/router"].attrs["kind"] == "centroid-euclidean"
        assert 0 < near["layers/00000/stats/metrics"].attrs["router_captured_mass"] <= 1
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    assert np.allclose(means / lengths, directions, atol=1e-6) and (lengths < 1).all()
    result = moefy("convert", llama, "near.h5", "-o", "moe", check=False)
    assert result.returncode == 2 and "compares distances" in result.stderr
    assert "--similarity euclidean is of --router centroid" in moefy(
        "route", llama, "map.h5", "--router", "zero", "--similarity", "euclidean", check=False).stderr


def test_a_router_of_two_layers_has_no_stock_host(moefy, llama, recorded):
    split(moefy, llama, "map.h5", "activation")
    moefy("route", llama, "map.h5", "--router", "mlp", "--recordings", "rec.h5", "--epochs", 1)
    result = moefy("convert", llama, "map.h5", "-o", "moe", check=False)
    assert result.returncode == 2 and "two layers" in result.stderr


def test_a_second_split_is_done_and_other_recordings_are_another_run(moefy, llama, recorded, tmp_path):
    split(moefy, llama, "map.h5", "activation")
    assert "already done" in split(moefy, llama, "map.h5", "activation").stderr
    write_recordings(moefy, llama, tmp_path / "rec.h5", TOKENS, seed=1)
    result = split(moefy, llama, "map.h5", "activation", check=False)
    assert result.returncode == 2 and "recordings" in result.stderr


def test_an_interrupted_route_leaves_the_map_alone(moefy, llama, recorded, tmp_path):
    split(moefy, llama, "map.h5", "activation")
    before = (tmp_path / "map.h5").read_bytes()
    with h5py.File(recorded, "r+") as file:
        file["layers/00002/x"][77, 3] = np.nan
    options = ("route", llama, "map.h5", "--router", "ridge", "--recordings", "rec.h5")
    result = moefy(*options, check=False)
    assert result.returncode == 3
    assert "layer 2" in result.stderr and "token 77, column 3" in result.stderr
    assert (tmp_path / "map.h5").read_bytes() == before
    # Layers 0 and 1 were finished and are not done again.
    journal = tmp_path / "map.h5.route.journal"
    assert journal.exists()
    write_recordings(moefy, llama, recorded, TOKENS)
    moefy(*options, "--force")
    assert not journal.exists()


def test_a_route_that_fails_at_once_leaves_nothing(moefy, llama, recorded, tmp_path):
    split(moefy, llama, "map.h5", "activation")
    with h5py.File(recorded, "r+") as file:
        for layer in file["layers"].values():
            layer["x"][0, 0] = np.nan
    result = moefy("route", llama, "map.h5", "--router", "ridge", "--recordings", "rec.h5", check=False)
    assert result.returncode == 3
    assert not list(tmp_path.glob("map.h5.*"))


def break_recordings(path, how):
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-5000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("these are no recordings\n" * 100)
    else:
        with h5py.File(path, "r+") as file:
            layer = file["layers/00001"]
            if how == "other weights":
                layer.attrs["fingerprint"] = "0" * 32
            elif how == "other shape":
                layer.attrs["num_neurons"] = np.int64(95)
                del file["importance"]
            elif how == "fewer tokens":
                del layer["x"]
                layer["x"] = np.zeros((5, 32), "<f2")
            elif how == "no tokens":
                file.attrs["num_tokens"] = np.int64(0)
            elif how == "newer":
                file.attrs["schema_version"] = np.int64(2)
            elif how == "missing layer":
                del file["layers/00001"]
            elif how == "doubles":
                values = layer["x"][:]
                del layer["x"]
                layer["x"] = values.astype("<f8")
            elif how == "integers":
                del layer["x"]
                layer["x"] = np.zeros((TOKENS, 32), "<i2")
            elif how == "chunked":
                values = layer["x"][:]
                del layer["x"]
                layer.create_dataset("x", data=values, chunks=(64, 32))
            elif how == "elsewhere":
                del layer["x"]
                layer["x"] = h5py.ExternalLink("other.h5", "/x")


@pytest.mark.parametrize("how, message", [
    ("cut", "the file is cut"), ("empty", "signature is missing"), ("text", "signature is missing"),
    ("other weights", "other weights"), ("other shape", "another model"),
    ("fewer tokens", "x has shape [5, 32]"), ("no tokens", "no tokens"), ("newer", "schema version"),
    ("missing layer", "was not recorded"), ("integers", "another type"),
    ("doubles", "float64"), ("chunked", "contiguous"),
    ("elsewhere", "external or linked")])
def test_recordings_that_do_not_fit_are_refused(moefy, llama, recorded, tmp_path, how, message):
    break_recordings(recorded, how)
    for ranks in (0, 2):
        result = split(moefy, llama, "map.h5", "activation", check=False, ranks=ranks)
        assert result.returncode == 3, result.stderr
        assert message in result.stderr and "rec.h5" in result.stderr
        assert not (tmp_path / "map.h5").exists()


def test_importance_is_needed_and_checked(moefy, llama, recorded, tmp_path):
    with h5py.File(recorded, "r+") as file:
        file["importance/00001/up"][2, 7] = np.inf
    result = split(moefy, llama, "map.h5", "gradient", check=False)
    assert result.returncode == 3 and "neuron 7 in text cluster 2" in result.stderr
    with h5py.File(recorded, "r+") as file:
        del file["importance"]
    shutil.rmtree(tmp_path / "map.h5.journal", ignore_errors=True)
    result = split(moefy, llama, "map.h5", "gradient", check=False)
    assert result.returncode == 3 and "record with --importance" in result.stderr


@pytest.mark.parametrize("arguments, message", [
    (("split", "MODEL", "-o", "m.h5", "--experts", 4, "--method", "activation"), "needs --recordings"),
    (("split", "MODEL", "-o", "m.h5", "--experts", 4, "--order", "activity"), "needs --recordings"),
    (("split", "MODEL", "-o", "m.h5", "--experts", 4, "--method", "routed", "--recordings", "rec.h5"),
     "needs --top-k"),
    (("split", "MODEL", "-o", "m.h5", "--experts", 4, "--active-fraction", "0"), "--active-fraction"),
    (("split", "MODEL", "-o", "m.h5", "--experts", 4, "--active-fraction", "much"), "a number"),
    (("route", "MODEL", "map.h5"), "--router"),
    (("route", "MODEL", "map.h5", "--router", "ridge"), "needs --recordings"),
    (("route", "MODEL", "map.h5", "--router", "random", "--device", 3), "--device 3 is for work on --recordings"),
    (("route", "MODEL", "map.h5", "--router", "random", "--backend", "cuda"), "--backend cuda is for work on"),
    (("route", "MODEL", "map.h5", "--router", "rigde"), "ridge"),
    (("route", "MODEL", "map.h5", "--router", "ridge", "--target", "softmax", "--recordings",
      "rec.h5"), "--target"),
    (("route", "MODEL", "map.h5", "--evaluate"), "needs --recordings"),
    (("route", "MODEL", "map.h5", "--router", "zero", "--top-k", 9), "only 4 experts"),
    (("route", "OTHER", "map.h5", "--router", "zero"), "other weights")])
def test_wrong_options_are_refused(moefy, llama, recorded, tmp_path, arguments, message):
    split(moefy, llama, "map.h5", "kmeans")
    other = write_llama(tmp_path / "other", seed=1)
    places = {"MODEL": llama, "OTHER": other}
    before = (tmp_path / "map.h5").read_bytes()
    result = moefy(*(places.get(word, word) for word in arguments), check=False)
    assert result.returncode == 2 and message in result.stderr, result.stderr
    assert (tmp_path / "map.h5").read_bytes() == before
    assert not (tmp_path / "m.h5").exists()


def test_a_plan_counts_what_recordings_take(moefy, llama):
    def peak(*more):
        return json.loads(moefy("plan", llama, "--experts", 4, *more, "--json").stdout)["peak_memory"]

    routed = peak("--recordings", "rec.h5", "--method", "routed", "--top-k", 2)
    assert routed > peak()
    assert peak("--recordings", "rec.h5", "--method", "activation") > routed  # all pairs of neurons
