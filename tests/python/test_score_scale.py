"""calibrate --score-scale: the measured scale, and where it goes."""

import json

import h5py
import numpy as np
import pytest
import torch

OPTIONS = ("--tokens", "64", "--sampled", "0", "--length", "16", "--quiet")


def gap(residual, output):
    from moefy.score_scale import Gap

    found = Gap()
    found.add(torch.tensor([residual]), torch.tensor([output]))
    return found


def test_the_scale_restores_the_ratio_to_the_residual_stream():
    from moefy.score_scale import scale_between

    assert scale_between(gap(20.0, 4.0), gap(20.0, 1.0)) == 4


def routing(**more):
    from moefy.score_scale import Routing

    layer = dict(experts=[[0, 2], [2, 1]], shared=[3, 4], num_neurons=6, bias=[],
                 weight=np.array([[1, 0], [0, 1]], np.float32), output=np.zeros((0, 0), np.float32))
    return Routing({**layer, **more}, top_k=1)


def test_a_neuron_counts_as_often_as_chosen_and_shared_lists_hold_it():
    inputs = torch.tensor([[2.0, 1.0], [1.0, 2.0], [1.0, 1.0]])
    assert routing().counts(inputs, 3.0).tolist() == [
        [3, 0, 3, 1, 1, 0], [0, 3, 3, 1, 1, 0], [3, 0, 3, 1, 1, 0]]  # a tie: the lower expert
    assert routing(bias=[0.0, 1.5]).counts(inputs, 1.0)[0].tolist() == [0, 1, 1, 1, 1, 0]


def test_routers_of_two_layers_see_unit_inputs():
    found = routing(output=np.array([[1, 2], [3, 4]], np.float32))
    expected = np.tanh([0.6, 0.8]) @ [[1, 3], [2, 4]]
    np.testing.assert_allclose(found.scores(torch.tensor([[3.0, 4.0]])).numpy()[0], expected, rtol=1e-6)


def split(moefy, model, *more, top_k=2):
    moefy("split", model, "-o", "map.h5", "--method", "random", "--experts", 4, "--top-k", top_k, *more)


def test_all_experts_on_need_no_scale(moefy, tiny, text, tmp_path):
    model = tiny("llama")
    split(moefy, model, top_k=4)
    moefy("calibrate", model, "--score-scale", "map.h5", "--text", text("a.txt"), *OPTIONS)
    with h5py.File(tmp_path / "map.h5") as file:
        scales = [layer.attrs["score_scale"] for layer in file["layers"].values()]
        options = json.loads(file["config"].asstr()[()])
    np.testing.assert_allclose(scales, 1, rtol=1e-5)
    assert options["score-scale"]["top-k"] == 4 and options["score-scale"]["tokens"] == 64


@pytest.mark.parametrize("family, more", [("llama", ()), ("llama", ("--shared", 1)), ("gpt2", ()),
                                          ("phi3", ()), ("llama", ("--layers", 1))])
def test_every_layer_gets_its_scale_once_the_earlier_ones_are_installed(
        moefy, tiny, text, tmp_path, family, more):
    model = tiny(family)
    split(moefy, model, *more)
    found = json.loads(moefy("calibrate", model, "--score-scale", "map.h5", "-o", "scaled.h5",
                             "--text", text("a.txt"), "--json", *OPTIONS).stdout)
    with h5py.File(tmp_path / "scaled.h5") as file:
        layers = [dict(layer.attrs) for layer in file["layers"].values()]
    with h5py.File(tmp_path / "map.h5") as file:
        assert all("score_scale" not in layer.attrs for layer in file["layers"].values())
    assert [layer["score_scale"] for layer in layers] == found["scales"]
    expected = reference_scales(model, tmp_path / "map.h5", text("a.txt"))
    np.testing.assert_allclose(found["scales"], expected, rtol=1e-3)


def reference_scales(folder, map_file, text_file):
    """Scale after scale by whole forward passes, the hidden activations masked in place."""
    import _moefy
    from moefy.ffn_inputs import input_module, owner_of
    from moefy.models import load_model, load_tokenizer
    from moefy.score_scale import Routing
    from moefy.texts import choose_sequences, read_text, to_sequences

    model = load_model(folder)
    ids = list(choose_sequences([to_sequences(load_tokenizer(folder), read_text(text_file), 16,
                                              text_file)], 64, 0))
    layers = _moefy.ffn_layers(str(folder), "")
    stored = _moefy.ScoreScales(str(folder), map_file).layers
    installed, scales = {}, []

    def gap_of(index):
        sums, hooks, inputs = [0.0, 0.0], [], {}
        for layer in layers:
            number = layer["index"]
            name = layer["tensors"][0].rsplit(".", 2)[0].rsplit(".", 1)[0]
            hooks.append(input_module(model, layer).register_forward_pre_hook(
                lambda _, a, n=number: inputs.__setitem__(n, a[0].reshape(-1, a[0].shape[-1]))))
            if number in installed:
                hooks.append(owner_of(model, layer, "down").register_forward_pre_hook(
                    lambda _, a, n=number: a[0] * Routing(stored[n], 2).counts(
                        inputs[n], installed[n]).reshape(a[0].shape)))
            if number == index:
                outputs = {}
                hooks.append(owner_of(model, layer, "down").register_forward_hook(
                    lambda _, __, out: outputs.__setitem__("ffn", out)))
                hooks.append(model.get_submodule(name).register_forward_hook(
                    lambda _, __, out: outputs.__setitem__("layer", out[0] if isinstance(out, tuple) else out)))
        try:
            for sequence in ids:
                with torch.no_grad():
                    model(input_ids=torch.as_tensor(sequence)[None])
                ffn = outputs["ffn"].reshape(outputs["layer"].shape)
                sums[0] += float((outputs["layer"] - ffn).abs().sum())
                sums[1] += float(ffn.abs().sum())
        finally:
            for hook in hooks:
                hook.remove()
        return sums[0] / sums[1]

    for layer in layers:
        number = layer["index"]
        if number not in stored:
            continue
        saved, installed = installed, {}
        dense = gap_of(number)
        installed = {**saved, number: 1.0}
        scales.append(gap_of(number) / dense)
        installed[number] = scales[-1]
    return scales


def test_a_calibrated_model_loads_in_a_stock_class_and_comes_back(moefy, tiny, text, tmp_path):
    from moefy.models import load_model

    model = tiny("llama")
    split(moefy, model)
    moefy("calibrate", model, "--score-scale", "map.h5", "--text", text("a.txt"), *OPTIONS)
    moefy("convert", model, "map.h5", "-o", "out", "--score-scale", "calibrated")
    moefy("verify", model, "out")
    assert torch.isfinite(load_model(tmp_path / "out")(input_ids=torch.arange(3, 19)[None]).logits).all()
    moefy("restore", "out", "-o", "back")
    assert (tmp_path / "back/model.safetensors").stat().st_size == (model / "model.safetensors").stat().st_size


@pytest.mark.parametrize("more, message", [
    (("--granularity", 8), "--granularity says what map is made"),
    (("--score-scale", "none.h5"), "none.h5")])
def test_what_does_not_fit_is_refused(moefy, tiny, text, more, message):
    model = tiny("llama")
    split(moefy, model)
    result = moefy("calibrate", model, "--score-scale", "map.h5", "--text", text("a.txt"), *OPTIONS, *more,
                   code=2 if more[0] == "--granularity" else 4)
    assert message in result.stderr


def test_the_map_of_another_model_is_refused(moefy, tiny, text, tmp_path):
    split(moefy, tiny("llama"))
    other = tiny("mistral", seed=1)
    result = moefy("calibrate", other, "--score-scale", "map.h5", "--text", text("a.txt"), *OPTIONS, code=3)
    assert "made from other weights" in result.stderr
