"""Host llama-moe: what its classes would compute from the files, written down here from the description of
their layers, against the dense model."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from recorded import write_recordings

TOKENS = 2000


def softmax(values):
    exponents = np.exp(values - values.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def gated(inputs, gate, up, down):
    z = inputs @ gate.T
    return (z / (1 + np.exp(-z)) * (inputs @ up.T)) @ down.T


class LlamaMoeLayer:
    """One FFN of a folder in LLaMA-MoE's layout."""

    def __init__(self, folder, layer):
        self.config = json.loads((folder / "config.json").read_text())
        self.layer = layer
        self.tensors = {}
        for file in folder.glob("*.safetensors"):
            self.tensors |= load_file(file)
        self.mlp = f"model.layers.{layer}.mlp."
        self.block = self.mlp + ("moe_layer." if "num_experts_residual" in self.config else "")

    def expert(self, block, number, inputs):
        return gated(inputs, *(self.tensors[f"{block}calculator.experts.weight_{role}.{number}"]
                               for role in ("gate", "up", "down")))

    def logits(self, inputs):
        gate = self.block + "gate.gate_network."
        if self.config["gate_network"] == "linear":
            return inputs @ self.tensors[gate + "weight"].T
        return np.tanh(inputs @ self.tensors[gate + "0.weight"].T) @ self.tensors[gate + "2.weight"].T

    def __call__(self, inputs, num_selects):
        experts = self.config["num_experts"]
        for number, width in enumerate(self.config["size_experts"][self.layer]):
            assert self.tensors[f"{self.block}calculator.experts.weight_gate.{number}"].shape[0] == width
        logits = self.logits(inputs)
        chosen = np.argsort(-logits, 1, kind="stable")[:, :num_selects]
        weights = np.ones(chosen.shape)
        if self.config["multiply_gate_scores"]:
            scale = self.config["score_scale_factor"]
            weights = softmax(np.take_along_axis(logits, chosen, 1)) * (
                scale[self.layer] if isinstance(scale, list) else scale)
        weight_of = np.zeros((len(inputs), experts))
        np.put_along_axis(weight_of, chosen, weights, 1)
        output = sum(weight_of[:, e: e + 1] * self.expert(self.block, e, inputs) for e in range(experts))
        residual = self.config.get("num_experts_residual", 0)
        for r in range(residual):
            output += (self.config["score_scale_factor_residual"] / residual
                       * self.expert(self.mlp + "residual_block.", r, inputs))
        return output


def dense_output(model, layer, inputs):
    tensors = load_file(model / "model.safetensors")
    return gated(inputs, *(tensors[f"model.layers.{layer}.mlp.{role}_proj.weight"]
                           for role in ("gate", "up", "down")))


@pytest.fixture
def recorded(moefy, llama, tmp_path):
    return write_recordings(moefy, llama, tmp_path / "rec.h5", TOKENS)


INPUTS = np.random.default_rng(3).standard_normal((7, 32))


@pytest.mark.parametrize("options", [("--gate-scale", "auto"), ("--gate-scale", 1)])
@pytest.mark.parametrize("split", [("--experts", 5), ("--experts", 4, "--shared", 2)])
def test_all_experts_on_is_the_dense_layer(moefy, llama, tmp_path, options, split):
    moefy("split", llama, "-o", "map.h5", "--method", "random", *split)
    moefy("route", llama, "map.h5", "--router", "zero")
    moefy("convert", llama, "map.h5", "-o", "moe", "--host", "llama-moe", *options)
    moefy("verify", llama, "moe")
    for layer in range(3):
        dense = dense_output(llama, layer, INPUTS)
        found = LlamaMoeLayer(tmp_path / "moe", layer)(INPUTS, split[1])
        assert np.abs(found - dense).max() <= 1e-5 * np.abs(dense).max()
    moefy("restore", "moe", "-o", "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (llama / "model.safetensors").read_bytes()


def test_a_softmax_over_one_of_two_keeps_the_mean_of_the_dense_layer(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "map.h5", "--method", "random", "--experts", 2, "--top-k", 1)
    moefy("convert", llama, "map.h5", "-o", "moe", "--host", "llama-moe", "--gate-scale", 1)
    layer = LlamaMoeLayer(tmp_path / "moe", 1)
    choices = [layer.config["score_scale_factor"] * layer.expert(layer.block, e, INPUTS) for e in range(2)]
    dense = dense_output(llama, 1, INPUTS)
    assert np.abs(sum(choices) / 2 - dense).max() <= 1e-5 * np.abs(dense).max()


@pytest.mark.parametrize("router", ["mlp", "mlp-topk"])
def test_routers_of_two_layers_choose_as_they_did(moefy, llama, recorded, tmp_path, router):
    import h5py

    moefy("split", llama, "-o", "map.h5", "--method", "kmeans", "--experts", 4, "--top-k", 2)
    moefy("route", llama, "map.h5", "--router", router, "--recordings", "rec.h5", "--epochs", 3)
    moefy("convert", llama, "map.h5", "-o", "moe", "--host", "llama-moe")
    moefy("verify", llama, "moe")
    # Inputs as the norm before the FFN makes them: of length sqrt(32), the norm's weights being one.
    inputs = INPUTS / np.sqrt((INPUTS ** 2).mean(1, keepdims=True))
    with h5py.File(tmp_path / "map.h5") as file:
        group = file["layers/00001/router"]
        unit = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
        expected = np.tanh(unit @ group["0/weight"][:].T) @ group["1/weight"][:].T
    found = LlamaMoeLayer(tmp_path / "moe", 1).logits(inputs)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_experts_of_unequal_width(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "map.h5", "--method", "random", "--experts", 3, "--sizes", "20,30,46")
    moefy("convert", llama, "map.h5", "-o", "moe", "--host", "llama-moe", "--uneven", "ragged")
    moefy("verify", llama, "moe")
    layer = LlamaMoeLayer(tmp_path / "moe", 2)
    assert layer.config["size_experts"][2] == [20, 30, 46] and layer.config["intermediate_size"] == 96
    dense = dense_output(llama, 2, INPUTS)
    assert np.abs(layer(INPUTS, 3) - dense).max() <= 1e-5 * np.abs(dense).max()


def test_the_listing_says_whose_classes_it_needs(moefy):
    line, = [line for line in moefy("--list", "hosts").stdout.splitlines() if line.startswith("llama-moe")]
    assert "its own classes" in line and "transformers has none" in line
