"""Experts that share neurons, and pruning: from recordings to weights that stock transformers loads."""

import json
import re

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recorded import write_recordings
from test_convert_transformers import assert_restored, difference, load, zero_routers
from tiny_models import load_tiny, output_of, write_tiny

NEURONS = 24
TOKENS = 600
SAME = 2e-5


def split_sharing(moefy, model, output, *options, **how):
    return moefy("split", model, "-o", output, "--method", "gradient", "--recordings", "rec.h5",
                 "--reproducible", *options, **how)


def split_randomly(moefy, model, keep=0.5):
    moefy("split", model, "-o", "map.h5", "--method", "prune", "--criterion", "random", "--keep", keep)


def layers_of(path):
    """Shared and routed lists of each layer."""
    with h5py.File(path) as file:
        for layer in file["layers"].values():
            assert layer.attrs["kind"] == "sharing" and "labels" not in layer
            members, offset = layer["members"][:], layer["expert_offset"][:]
            yield (layer.attrs["name"], members[: offset[0]],
                   [members[a:b] for a, b in zip(offset, offset[1:])])


@pytest.fixture
def recorded(moefy, llama, tmp_path):
    return write_recordings(moefy, llama, tmp_path / "rec.h5", TOKENS)


@pytest.mark.parametrize("options", [
    ("--experts", 4, "--sharing", "inner", "--sizes", 30),
    ("--experts", 3, "--shared", 2, "--sharing", "inter"),
    ("--method", "prune", "--keep", 0.4),
    ("--method", "prune", "--keep", 0.4, "--criterion", "random", "--weights", "concat")])
def test_ranks_and_feed_do_not_change_a_byte(moefy, llama, recorded, tmp_path, options):
    method = () if "--method" in options else ("--method", "gradient")
    for name, more, ranks in (("alone", (), 0), ("two", ("--threads", 1), 2),
                              ("three", ("--feed", "coordinator"), 3)):
        moefy("split", llama, "-o", f"{name}.h5", *method, *options, "--recordings", "rec.h5",
              "--reproducible", *more, ranks=ranks)

    alone = (tmp_path / "alone.h5").read_bytes()
    assert (tmp_path / "two.h5").read_bytes() == alone
    assert (tmp_path / "three.h5").read_bytes() == alone
    moefy("inspect", "alone.h5", "--verify", "--model", llama)
    assert moefy("diff", "alone.h5", "two.h5").returncode == 0


def test_pruning_at_random_needs_no_recordings_wherever_the_layers_come_from(moefy, llama, tmp_path):
    for name, more, ranks in (("alone", (), 0), ("sent", ("--feed", "coordinator"), 2)):
        moefy("split", llama, "-o", f"{name}.h5", "--method", "prune", "--criterion", "random",
              "--keep", 0.25, "--reproducible", *more, ranks=ranks)

    assert (tmp_path / "alone.h5").read_bytes() == (tmp_path / "sent.h5").read_bytes()
    kept = [experts for _, _, experts in layers_of(tmp_path / "alone.h5")]
    assert all(len(experts) == 1 and len(experts[0]) == 24 for experts in kept)
    assert not np.array_equal(kept[0][0], kept[1][0])


def test_inner_sharing_takes_each_clusters_favourites(moefy, llama, recorded, tmp_path):
    split_sharing(moefy, llama, "map.h5", "--experts", 4, "--sharing", "inner", "--sizes", 10)

    with h5py.File(tmp_path / "rec.h5") as file:
        scores = [file[f"importance/0000{layer}/up"][:] for layer in range(3)]
    for (_, shared, experts), score in zip(layers_of(tmp_path / "map.h5"), scores):
        assert shared.size == 0
        for expert, row in zip(experts, score):
            np.testing.assert_array_equal(expert, np.argsort(-row, kind="stable")[:10])


def test_inspect_tells_what_is_shared_and_what_is_left_out(moefy, llama, recorded, tmp_path):
    split_sharing(moefy, llama, "map.h5", "--experts", 4, "--sharing", "inner", "--sizes", 10)

    lines = [line for line in moefy.json_lines("inspect", "map.h5") if line["type"] == "layer"]
    text = moefy("inspect", "map.h5", "--html", "map.html").stdout

    for line, (_, _, experts) in zip(lines, layers_of(tmp_path / "map.h5")):
        union = set(np.concatenate(experts))
        assert line["sharing"]["omitted"] == sorted(set(range(96)) - union)
        assert line["sharing"]["coverage"] == pytest.approx(len(union) / 96)
        assert line["sharing"]["duplicates"] == 40 - len(union)
        both = len(set(experts[0]) & set(experts[1]))
        assert line["sharing"]["overlap"][0][1] == pytest.approx(both / (20 - both))
    assert "duplicates" in text and f"{lines[0]['sharing']['coverage']:.4f}" in text
    assert "Shared neurons" in (tmp_path / "map.html").read_text()


def test_shared_neurons_count_as_often_as_the_lists_hold_them(moefy, tmp_path):
    """All experts on, routers zeroed: a stock class against the dense one with scaled neurons."""
    model = tmp_path / "model"
    dense = write_tiny("llama", model)
    write_recordings(moefy, model, tmp_path / "rec.h5", TOKENS)
    for host, options in (("mixtral", ("--sharing", "inner", "--sizes", 9)),
                          ("glm4-moe", ("--sharing", "inter", "--shared", 1))):
        split_sharing(moefy, model, "map.h5", "--experts", 4, *options, "--force")
        moefy("convert", model, "map.h5", "-o", "moe", "--host", host, "--force")
        verified = moefy("verify", model, "moe").stdout
        assert "counts as often" in verified
        expected = load_tiny("llama", model)
        for (name, shared, experts) in layers_of(tmp_path / "map.h5"):
            times = np.bincount(np.concatenate([shared, *experts]), minlength=NEURONS)
            assert times.max() > 1
            with torch.no_grad():
                expected.get_submodule(name).down_proj.weight *= torch.tensor(times)
        found = zero_routers(load(tmp_path / "moe"))
        assert difference(found, expected) <= SAME * float(output_of(dense).abs().max())


def test_a_sharing_map_with_every_neuron_comes_back(moefy, llama, recorded, tmp_path):
    split_sharing(moefy, llama, "map.h5", "--experts", 2, "--sharing", "inner", "--sizes", 96)
    moefy("convert", llama, "map.h5", "-o", "moe")
    assert_restored(moefy, llama, tmp_path / "moe")


def test_what_lacks_neurons_is_not_restored(moefy, llama, tmp_path):
    split_randomly(moefy, llama)
    moefy("convert", llama, "map.h5", "-o", "small", "--host", "dense")
    result = moefy("restore", "small", "-o", "back", check=False)
    with h5py.File(tmp_path / "map.h5") as file:
        kept = set(file["layers/00000/members"][:])
    first = next(neuron for neuron in range(96) if neuron not in kept)
    assert result.returncode == 3
    assert f"layer 0 ('model.layers.0.mlp'): neurons {first}, " in result.stderr
    assert not (tmp_path / "back").exists()


DOWN = {"llama": ("down_proj.weight", 1), "phi3": ("down_proj.weight", 1), "gpt2": ("c_proj.weight", 0),
        "gpt2-default-width": ("c_proj.weight", 0), "opt": ("fc2.weight", 1),
        "gpt_neox": ("dense_4h_to_h.weight", 1), "bert": ("output.dense.weight", 1), "t5": ("wo.weight", 1),
        "t5-gated": ("wo.weight", 1), "gemma3": ("down_proj.weight", 1)}


@pytest.mark.parametrize("family", DOWN)
def test_a_pruned_dense_model_is_smaller_and_stock(moefy, tmp_path, family):
    dense = write_tiny(family, tmp_path / "model")
    split_randomly(moefy, tmp_path / "model", 0.55)
    moefy("convert", tmp_path / "model", "map.h5", "-o", "small", "--host", "dense")
    moefy("verify", tmp_path / "model", "small")

    small = load_tiny(family, tmp_path / "small")
    name, axis = DOWN[family]
    parameters = dict(dense.named_parameters())
    for prefix, _, (kept,) in layers_of(tmp_path / "map.h5"):
        down = parameters[f"{prefix}.{name}"]
        on = torch.zeros(down.shape[axis])
        on[torch.tensor(kept, dtype=torch.int64)] = 1
        with torch.no_grad():
            down *= on if axis == 1 else on[:, None]
    assert difference(small, dense) <= SAME * max(1, float(output_of(dense).abs().max()))
    sizes = [sum(t.numel() for file in (tmp_path / folder).glob("*.safetensors") for t in load_file(file).values())
             for folder in ("model", "small")]
    assert sizes[1] < sizes[0]


def test_a_map_of_some_layers_does_not_prune_a_dense_model(moefy, llama):
    moefy("split", llama, "-o", "map.h5", "--method", "prune", "--criterion", "random", "--keep", 0.5,
          "--layers", 1)
    result = moefy("convert", llama, "map.h5", "-o", "small", "--host", "dense", check=False)
    assert result.returncode == 2 and "split all layers alike" in result.stderr


def test_every_router_fits_lists_that_share_neurons(moefy, llama, recorded, tmp_path):
    split_sharing(moefy, llama, "map.h5", "--experts", 4, "--sharing", "inner", "--sizes", 30)
    for router in ("ridge", "centroid", "mean-gate", "random", "zero", "mlp", "mlp-topk"):
        line, = moefy.json_lines("route", llama, "map.h5", "-o", f"{router}.h5", "--router", router,
                                 "--recordings", "rec.h5", "--top-k", 2, "--evaluate")
        assert 0 <= line["mean"]["router_recall"] <= 1
        with h5py.File(tmp_path / f"{router}.h5") as file:
            assert file["layers/00002"].attrs["kind"] == "sharing"
    with h5py.File(tmp_path / "map.h5") as split, h5py.File(tmp_path / "centroid.h5") as routed:
        name = "layers/00001/router/weight"
        # split may have made the rows unit long before: the last bits differ.
        np.testing.assert_allclose(split[name][:], routed[name][:], atol=1e-6)


@pytest.mark.parametrize("options, message", [
    (("--method", "kmeans", "--experts", 4, "--sharing", "inner"), "--sharing inner is for --method gradient"),
    (("--method", "gradient", "--experts", 4, "--sharing", "inter"), "needs --shared S"),
    (("--method", "gradient", "--experts", 4, "--sharing", "inner", "--shared", 1), "no always-on experts"),
    (("--method", "gradient", "--experts", 4, "--criterion", "random"), "is for --method prune"),
    (("--method", "gradient", "--experts", 2, "--shared", 90, "--sharing", "inter", "--sizes", 2),
     r"90 always-on experts .* 2 neurons each do not fit into 96"),
    (("--method", "prune", "--keep", 0, "--criterion", "random"), "--keep must be above 0"),
    (("--method", "prune", "--keep", 0.5, "--experts", 2), "makes one expert"),
    (("--method", "prune", "--keep", 0.5), None),
    (("--method", "random", "--experts", 4, "--keep", 0.5), "--keep is for --method prune")])
def test_options_that_do_not_fit_are_refused(moefy, llama, recorded, tmp_path, options, message):
    recordings = ("--recordings", "rec.h5") if message else ()
    result = moefy("split", llama, "-o", "map.h5", *options, *recordings, check=False)
    assert result.returncode == 2
    assert re.search(message or "--method prune needs --recordings", result.stderr)
    assert not (tmp_path / "map.h5").exists()


def test_plans_and_options_are_told(moefy, llama, tmp_path):
    moefy("split", llama, "--method", "prune", "--criterion", "random", "--keep", 0.5, "--dry-run")
    split_randomly(moefy, llama, 0.3)
    with h5py.File(tmp_path / "map.h5") as file:
        options = json.loads(file["config"].asstr()[()])
    assert options["method"] == "prune" and options["keep"] == 0.3
    assert "prune" in moefy("--list", "methods").stdout
