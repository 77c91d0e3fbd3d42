"""Every split method with every router in every host, on a tiny model of every family: stock
transformers loads what comes out, with nothing missing or left over, and computes the dense model
with each FFN masked to the experts that the router chooses."""

import h5py
import pytest
import torch

from recorded import write_recordings
from stock_models import SAME, difference, load, mask_ffn, scale_of
from tiny_models import LAYERS, load_tiny, output_of, write_tiny

EXPERTS, TOP_K, TOKENS = 4, 2, 300
# What a converted model may differ from the masked one, as a share of what masking changes.
SMALL_SHARE = 0.2
METHODS = ["kmeans", "random", "contiguous", "coactivation", "activation", "gradient", "routed"]
# Those of one matrix; stock classes have no place for two layers.
ROUTERS = ["ridge", "centroid", "mean-gate", "random"]

# host -> the family that stands for all that it carries, and the others
HOSTS = {
    "qwen2-moe": ("llama", "mistral", "qwen2"),
    "glm4-moe": ("qwen3", "llama", "qwen2", "phi3"),
    "mixtral": ("mistral", "llama", "phi3", "gemma"),
    "qwen3-moe": ("qwen3",),
    "granitemoe": ("granite", "gemma", "llama-attention-bias"),
    "granitemoeshared": ("gemma", "granite", "llama"),
    "dots1": ("qwen3",),
    "solar-open": ("qwen2", "llama"),
    "exaone-moe": ("qwen3",),
}
OTHER_FAMILIES = [(host, family) for host, (_, *others) in HOSTS.items() for family in others]
# Families that no MoE class carries: their experts are an order of neurons.
DENSE = ["llama-bias", "gemma2", "gemma3", "gpt2", "opt", "gpt_neox", "bert", "t5", "t5-gated"]


def split(moefy, model, method, host):
    shared = 1 if host == "granitemoeshared" else 0
    moefy("split", model, "-o", "map.h5", "--experts", EXPERTS, "--shared", shared, "--method", method,
          "--recordings", "rec.h5", "--top-k", TOP_K)


def routers_of(map_file):
    """(expert of every neuron, router) of each layer."""
    with h5py.File(map_file) as file:
        for layer in range(LAYERS):
            group = file[f"layers/{layer:05d}"]
            yield torch.from_numpy(group["labels"][()]).long(), torch.from_numpy(group["router/weight"][()])


def check_converted(moefy, family, dense, model, map_file, output, host):
    moefy("convert", model, map_file, "-o", output, "--host", host)

    converted = load(moefy.folder / output)

    masked = load_tiny(family, model)
    for layer, (labels, router) in zip(masked.model.layers, routers_of(moefy.folder / map_file)):
        mask_ffn(layer.mlp, labels, router, TOP_K)
    assert difference(masked, converted) <= SMALL_SHARE * difference(masked, dense)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("host", HOSTS)
def test_methods_and_routers_in_hosts(host, method, moefy, tmp_path):
    family, model = HOSTS[host][0], tmp_path / "model"
    dense = write_tiny(family, model)
    write_recordings(moefy, model, tmp_path / "rec.h5", TOKENS)
    split(moefy, model, method, host)

    for router in ROUTERS:
        moefy("route", model, "map.h5", "-o", f"{router}.h5", "--router", router, "--recordings", "rec.h5")
        check_converted(moefy, family, dense, model, f"{router}.h5", router, host)
    moefy("route", model, "map.h5", "--router", "zero")
    moefy("convert", model, "map.h5", "-o", "zero", "--host", host, "--top-k", EXPERTS)
    assert difference(dense, load(tmp_path / "zero")) <= SAME * scale_of(dense)


@pytest.mark.parametrize("host, family", OTHER_FAMILIES)
def test_other_families_in_hosts(host, family, moefy, tmp_path):
    """A method and a router each, in turn: what they make does not depend on the family."""
    place, model = OTHER_FAMILIES.index((host, family)), tmp_path / "model"
    dense = write_tiny(family, model)
    write_recordings(moefy, model, tmp_path / "rec.h5", TOKENS)
    split(moefy, model, METHODS[place % len(METHODS)], host)
    moefy("route", model, "map.h5", "--router", ROUTERS[place % len(ROUTERS)], "--recordings", "rec.h5")

    check_converted(moefy, family, dense, model, "map.h5", "out", host)

    moefy("verify", model, "out")


@pytest.mark.parametrize("family", DENSE)
def test_methods_in_families_without_experts(family, moefy, tmp_path):
    """Activations of any kind, biases, layers that are not gated, encoders and decoders."""
    model = tmp_path / "model"
    dense = write_tiny(family, model)
    write_recordings(moefy, model, tmp_path / "rec.h5", TOKENS)

    for method in METHODS:
        moefy("split", model, "-o", f"{method}.h5", "--experts", EXPERTS, "--method", method,
              "--recordings", "rec.h5", "--top-k", TOP_K)
        moefy("convert", model, f"{method}.h5", "-o", method, "--host", "dense")

        scale = max(float(output_of(dense).abs().max()), 1)
        assert difference(dense, load_tiny(family, tmp_path / method)) <= 1e-5 * scale, method
