"""Every split method with every router in every host, on a tiny model of every family: stock
transformers loads what comes out, with nothing missing or left over, and computes the dense model
with each FFN masked to the experts that the router chooses."""

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from recorded import write_recordings
from stock_models import SAME, count_ffn, difference, load, scale_of
from test_llama_moe import LlamaMoeLayer, gated
from tiny_models import LAYERS, load_tiny, output_of, write_tiny

EXPERTS, TOP_K, TOKENS = 4, 2, 300
# What a converted model may differ from the masked one, as a share of what masking changes.
SMALL_SHARE = 0.2
METHODS = ["kmeans", "random", "contiguous", "coactivation", "activation", "gradient", "routed"]
# Those whose experts share or omit neurons.
SHARING = ["inner", "inter", "prune"]
# Those of one matrix; stock classes have no place for two layers.
ROUTERS = ["ridge", "centroid", "mean-gate", "random"]
DEEP_ROUTERS = ["mlp", "mlp-topk"]

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
# Always-on experts need a place, and routers that compare the best two a second expert.
NOT_CARRIED = {"inter": {"mixtral", "qwen3-moe", "granitemoe"},
               "prune": {"glm4-moe", "dots1", "solar-open", "exaone-moe"}}


def carries(host, method):
    return host not in NOT_CARRIED.get(method, ())


SHARING_IN_HOSTS = [(host, method) for host in HOSTS for method in SHARING if carries(host, method)]
# Families that no MoE class carries: their experts are an order of neurons.
DENSE = ["llama-bias", "gemma2", "gemma3", "gpt2", "opt", "gpt_neox", "bert", "t5", "t5-gated"]


def split(moefy, model, method, host):
    shared = 1 if host == "granitemoeshared" else 0
    options = {
        "prune": ("--method", "prune", "--keep", 0.5),
        "inner": ("--method", "gradient", "--experts", EXPERTS, "--sharing", "inner", "--top-k", TOP_K),
        "inter": ("--method", "gradient", "--experts", EXPERTS, "--sharing", "inter", "--shared", 1,
                  "--top-k", TOP_K),
    }.get(method, ("--method", method, "--experts", EXPERTS, "--shared", shared, "--top-k", TOP_K))
    moefy("split", model, "-o", "map.h5", *options, "--recordings", "rec.h5")


def layers_of(map_file):
    """Of each layer how often each expert has each neuron [experts, neurons], how often the always-on
    ones do [neurons], and the router's matrices."""
    with h5py.File(map_file) as file:
        for layer in file["layers"].values():
            members, offset = layer["members"][()], layer["expert_offset"][()]
            counts = np.zeros((len(offset) - 1, layer.attrs["num_neurons"]), np.float32)
            for expert, (begin, end) in enumerate(zip(offset, offset[1:])):
                counts[expert, members[begin:end]] += 1
            always = np.zeros(counts.shape[1], np.float32)
            always[members[:offset[0]]] += 1
            router = layer["router"]
            names = ["weight"] if "weight" in router else ["0/weight", "1/weight"]
            yield counts, always, [router[name][()] for name in names]


def check_converted(moefy, family, dense, model, map_file, output, host):
    moefy("convert", model, map_file, "-o", output, "--host", host)

    converted = load(moefy.folder / output)

    counted = load_tiny(family, model)
    for layer, (counts, always, (router,)) in zip(counted.model.layers, layers_of(moefy.folder / map_file)):
        count_ffn(layer.mlp, *map(torch.from_numpy, (counts, always, router)), min(TOP_K, len(counts)))
    assert difference(counted, converted) <= SMALL_SHARE * difference(counted, dense)


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


@pytest.mark.parametrize("host, method", SHARING_IN_HOSTS)
def test_methods_that_share_neurons_in_hosts(host, method, moefy, tmp_path):
    """A router each, in turn: what they make does not depend on the lists' kind."""
    place, family, model = SHARING_IN_HOSTS.index((host, method)), HOSTS[host][0], tmp_path / "model"
    dense = write_tiny(family, model)
    write_recordings(moefy, model, tmp_path / "rec.h5", TOKENS)
    split(moefy, model, method, host)
    moefy("route", model, "map.h5", "--router", ROUTERS[place % len(ROUTERS)], "--recordings", "rec.h5")

    check_converted(moefy, family, dense, model, "map.h5", "out", host)

    moefy("verify", model, "out")


@pytest.mark.parametrize("method", METHODS + SHARING)
def test_methods_and_routers_in_llama_moe(method, llama, moefy, tmp_path):
    """The layers as its own classes would compute them, for routers of two layers too."""
    write_recordings(moefy, llama, tmp_path / "rec.h5", TOKENS)
    split(moefy, llama, method, "llama-moe")
    # As the norm before an FFN makes them: of length sqrt(32), its weights being one.
    inputs = np.random.default_rng(3).standard_normal((7, 32))
    inputs /= np.sqrt((inputs ** 2).mean(1, keepdims=True))
    unit = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    tensors = load_file(llama / "model.safetensors")

    for router in ROUTERS + DEEP_ROUTERS:
        moefy("route", llama, "map.h5", "-o", f"{router}.h5", "--router", router, "--recordings", "rec.h5",
              *(("--epochs", 1) if router in DEEP_ROUTERS else ()),
              *(("--top-k", 1) if method == "prune" else ()))
        moefy("convert", llama, f"{router}.h5", "-o", router, "--host", "llama-moe")

        for layer, (counts, always, matrices) in enumerate(layers_of(tmp_path / f"{router}.h5")):
            scores = (np.tanh(unit @ matrices[0].T) @ matrices[1].T if len(matrices) > 1
                      else inputs @ matrices[0].T)
            top_k = min(TOP_K, len(counts))
            chosen = np.argsort(-scores, 1)[:, :top_k]
            up, gate, down = (tensors[f"model.layers.{layer}.mlp.{role}_proj.weight"]
                              for role in ("up", "gate", "down"))
            times = counts[chosen].sum(1) + always
            expected = sum(gated(inputs, gate[[i]], up[[i]], down[:, [i]]) * times[:, [i]] for i in range(len(up)))
            found = LlamaMoeLayer(tmp_path / router, layer)(inputs, top_k)
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), (router, layer)


@pytest.mark.parametrize("host, family", OTHER_FAMILIES)
def test_other_families_in_hosts(host, family, moefy, tmp_path):
    """A method and a router each, in turn: what they make does not depend on the family."""
    place, model = OTHER_FAMILIES.index((host, family)), tmp_path / "model"
    dense = write_tiny(family, model)
    write_recordings(moefy, model, tmp_path / "rec.h5", TOKENS)
    methods = [method for method in METHODS + SHARING if carries(host, method)]
    split(moefy, model, methods[place % len(methods)], host)
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
