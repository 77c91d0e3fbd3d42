"""What `convert` writes, read by stock transformers: nothing missing, nothing left over, same logits.

All comparisons are in fp32: the noise of bf16 arithmetic is larger than any error of a conversion.
"""

import json
import subprocess

import pytest
import torch
import transformers
from safetensors.torch import load_file

from conftest import helper
from recorded import write_recordings
from stock_models import CLOSE, SAME, difference, load, mask_ffn, scale_of
from tiny_models import FAMILIES, LAYERS, LLAMA, load_tiny, output_of, write_tiny

DENSE_ONLY = ["llama-bias", "llama-base", "gemma2", "gemma3", "granite-bias", "gpt2",
              "gpt2-default-width", "gpt2-base", "opt", "opt-base", "gpt_neox", "gpt_neox-base", "bert",
              "bert-base", "t5", "t5-gated"]


def split(moefy, model, experts=4, *options):
    moefy("split", model, "-o", "map.h5", "--method", "random", "--experts", experts, *options)
    return moefy.folder / "map.h5"


def zero_routers(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("mlp.gate.weight", "block_sparse_moe.router.weight")):
                parameter.zero_()
    return model


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def edit_config(folder, **changes):
    (folder / "config.json").write_text(json.dumps(config_of(folder) | changes))


def assert_restored(moefy, source, converted):
    moefy("restore", converted, "-o", "restored")
    restored = moefy.folder / "restored"
    for file in source.glob("*.safetensors"):
        expected, found = load_file(file), load_file(restored / file.name)
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert tensor.dtype == found[name].dtype and torch.equal(tensor, found[name]), name
    assert (source / "config.json").read_bytes() == (restored / "config.json").read_bytes()


@pytest.mark.parametrize("name", FAMILIES)
def test_permuted_dense_gives_the_same_logits(name, moefy, tmp_path):
    dense = write_tiny(name, tmp_path / "model")
    split(moefy, tmp_path / "model", 5)

    moefy("convert", tmp_path / "model", "map.h5", "-o", "out", "--host", "dense")

    converted = load_tiny(name, tmp_path / "out")
    scale = float(output_of(dense).abs().max())
    assert difference(dense, converted) <= 1e-5 * max(scale, 1)
    moefy("verify", tmp_path / "model", "out")
    assert_restored(moefy, tmp_path / "model", tmp_path / "out")


MOE = [
    # family, host, split options, convert options
    ("llama", "qwen2_moe", ("--experts", 4), ()),
    ("llama", "qwen2_moe", ("--experts", 4, "--shared", 2), ()),
    ("llama", "qwen2_moe", ("--experts", 4, "--shared", 1, "--layers", "1"), ()),
    ("llama", "qwen2_moe", ("--experts", 4, "--shared", 1), ("--layout", "fused")),
    ("llama", "mixtral", ("--experts", 4), ("--host", "mixtral")),
    ("llama", "mixtral", ("--experts", 4), ("--host", "mixtral", "--layout", "fused")),
    ("mistral", "qwen2_moe", ("--experts", 8), ()),
    ("mistral", "mixtral", ("--experts", 8), ("--host", "mixtral")),
    ("qwen2", "qwen2_moe", ("--experts", 4, "--shared", 1), ()),
    ("llama", "glm4_moe", ("--experts", 5, "--shared", 2), ()),
    ("llama", "glm4_moe", ("--experts", 5), ()),
    ("llama", "glm4_moe", ("--experts", 5, "--shared", 1), ("--layout", "fused")),
    ("llama", "glm4_moe", ("--experts", 6, "--layers", "1"), ()),
    ("qwen2", "glm4_moe", ("--experts", 5, "--shared", 1), ()),
    ("qwen3", "glm4_moe", ("--experts", 4, "--shared", 2), ()),
    ("qwen3", "qwen3_moe", ("--experts", 4), ()),
    ("qwen3", "qwen3_moe", ("--experts", 4, "--layers", "1"), ()),
    ("qwen3", "qwen3_moe", ("--experts", 4), ("--layout", "fused")),
    ("phi3", "glm4_moe", ("--experts", 4), ()),
    ("phi3", "mixtral", ("--experts", 4), ("--host", "mixtral")),
    ("gemma", "mixtral", ("--experts", 4), ("--host", "mixtral")),
    ("gemma", "granitemoe", ("--experts", 4), ()),
    ("gemma", "granitemoeshared", ("--experts", 4, "--shared", 1), ()),
    ("granite", "granitemoe", ("--experts", 4), ()),
    ("granite", "granitemoe", ("--experts", 4), ("--layout", "fused")),
    ("granite", "granitemoeshared", ("--experts", 4, "--shared", 2), ()),
    ("granite", "granitemoeshared", ("--experts", 4, "--shared", 1), ("--layout", "fused")),
    ("granite", "granitemoeshared", ("--experts", 4), ("--host", "granitemoeshared")),
    ("llama-attention-bias", "granitemoe", ("--experts", 4), ()),
    ("llama-attention-bias", "granitemoeshared", ("--experts", 4, "--shared", 1), ()),
    ("llama", "solar_open", ("--experts", 5), ("--host", "solar-open")),
    ("llama", "solar_open", ("--experts", 5, "--shared", 2), ("--host", "solar-open", "--layout", "fused")),
    ("qwen2", "solar_open", ("--experts", 5, "--shared", 1), ("--host", "solar-open")),
    ("qwen3", "dots1", ("--experts", 5), ("--host", "dots1")),
    ("qwen3", "dots1", ("--experts", 5, "--shared", 2, "--layers", "1"), ("--host", "dots1")),
    ("qwen3", "dots1", ("--experts", 5, "--shared", 1), ("--host", "dots1", "--layout", "fused")),
    ("qwen3", "exaone_moe", ("--experts", 5), ("--host", "exaone-moe")),
    ("qwen3", "exaone_moe", ("--experts", 5, "--shared", 2, "--layers", "0"), ("--host", "exaone-moe")),
    ("qwen3", "exaone_moe", ("--experts", 5, "--shared", 1), ("--host", "exaone-moe", "--layout", "fused")),
]


@pytest.mark.parametrize("family, model_type, split_options, options", MOE)
def test_all_experts_on_equal_the_dense_model(family, model_type, split_options, options, moefy, tmp_path):
    dense = write_tiny(family, tmp_path / "model")
    moefy("split", tmp_path / "model", "-o", "map.h5", "--method", "random", *split_options)

    moefy("convert", tmp_path / "model", "map.h5", "-o", "out", *options)

    assert config_of(tmp_path / "out")["model_type"] == model_type
    converted = load(tmp_path / "out")
    scale = max(float(output_of(dense).abs().max()), 1)
    assert difference(dense, converted) <= CLOSE * scale
    assert difference(dense, zero_routers(converted)) <= SAME * scale
    moefy("verify", tmp_path / "model", "out", "--bound")
    assert_restored(moefy, tmp_path / "model", tmp_path / "out")


# dtype -> the smallest alignment for experts of 24 / 9 neurons, 3 at most: rows of 16 bytes
SMALLEST_ALIGN = {torch.float32: 2, torch.bfloat16: 8}


@pytest.mark.parametrize("family, host", [("llama", "glm4-moe"), ("llama", "qwen2-moe"), ("llama", "mixtral"),
                                          ("qwen3", "qwen3-moe"), ("qwen3", "dots1"), ("qwen3", "exaone-moe"),
                                          ("llama", "solar-open"), ("granite", "granitemoe"),
                                          ("granite", "granitemoeshared")])
@pytest.mark.parametrize("dtype", SMALLEST_ALIGN)
def test_widths_that_stock_classes_cannot_multiply_are_refused(family, host, dtype, moefy, tmp_path):
    dense = write_tiny(family, tmp_path / "model", dtype=dtype)
    moefy("split", tmp_path / "model", "-o", "map.h5", "--experts", 9, "--method", "contiguous")
    options = ("--host", host, "--top-k", 2)

    refused = moefy("convert", tmp_path / "model", "map.h5", "-o", "out", *options, "--align", 1, check=False)

    assert refused.returncode == 2 and not (tmp_path / "out").exists()
    assert f"smallest --align that works is {SMALLEST_ALIGN[dtype]}\n" in refused.stderr
    moefy("convert", tmp_path / "model", "map.h5", "-o", "out", *options, "--align", SMALLEST_ALIGN[dtype])
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=dtype).eval()
    assert output_of(model).shape == output_of(dense).shape


def test_bf16_checkpoints_keep_their_dtype(moefy, tmp_path):
    write_tiny("llama", tmp_path / "model", dtype=torch.bfloat16)
    split(moefy, tmp_path / "model")

    moefy("convert", tmp_path / "model", "map.h5", "-o", "out")

    tensors = load_file(next((tmp_path / "out").glob("*.safetensors")))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    dense = load_tiny("llama", tmp_path / "model")
    assert difference(dense, zero_routers(load(tmp_path / "out"))) <= SAME * float(output_of(dense).abs().max())
    assert_restored(moefy, tmp_path / "model", tmp_path / "out")


def save(model_type, folder, **settings):
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(model_type, **dict(LLAMA, **settings))
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return model


VARIANTS = [
    ("mistral", dict(sliding_window=5)),
    ("mistral", dict(sliding_window=None)),
    ("qwen2", dict(use_sliding_window=True, sliding_window=5, max_window_layers=1)),
    ("qwen2", dict(tie_word_embeddings=True)),
    ("llama", dict(rms_norm_eps=1e-3, head_dim=12)),
    ("llama", dict(rope_parameters=dict(rope_type="default", rope_theta=777.0))),
    ("llama", dict(rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
                                        high_freq_factor=4.0, original_max_position_embeddings=16))),
    ("llama", dict(rope_parameters=dict(rope_type="yarn", rope_theta=500.0, factor=4.0,
                                        original_max_position_embeddings=16))),
    ("llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0))),
]


# What a host has no place for, by a word of the message; everything else must be carried.
NO_WINDOW = {"glm4-moe", "granitemoe", "solar-open"}
NO_BIASES = {"mixtral": "biases", "granitemoe": "biases"}


def refusal_of(host, model_type, settings):
    if host in NO_WINDOW and settings.get("sliding_window"):
        return "no sliding window"
    return NO_BIASES.get(host) if model_type == "qwen2" else None


@pytest.mark.parametrize("model_type, settings", VARIANTS)
def test_what_a_family_needs_is_carried(model_type, settings, moefy, tmp_path):
    dense = save(model_type, tmp_path / "model", **settings)
    split(moefy, tmp_path / "model")
    scale = max(float(output_of(dense).abs().max()), 1)

    for host in ["qwen2-moe", "mixtral", "glm4-moe", "granitemoe", "solar-open"]:
        result = moefy("convert", tmp_path / "model", "map.h5", "-o", host, "--host", host, check=False)

        if reason := refusal_of(host, model_type, settings):
            assert result.returncode == 2 and reason in result.stderr, host
            continue
        assert result.returncode == 0, result.stderr
        assert difference(dense, zero_routers(load(tmp_path / host))) <= SAME * scale, host


@pytest.mark.parametrize("settings", [
    dict(rms_norm_eps=1e-3, head_dim=12), dict(tie_word_embeddings=True), dict(attention_bias=True),
    dict(rope_parameters=dict(rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=16)),
])
def test_what_qwen3_needs_is_carried(settings, moefy, tmp_path):
    dense = save("qwen3", tmp_path / "model", **settings)
    split(moefy, tmp_path / "model")
    scale = max(float(output_of(dense).abs().max()), 1)

    for host in ["qwen3-moe", "glm4-moe", "dots1", "exaone-moe"]:
        result = moefy("convert", tmp_path / "model", "map.h5", "-o", host, "--host", host, check=False)

        if "attention_bias" in settings and host != "dots1":
            assert result.returncode == 2 and "bias" in result.stderr, host
            continue
        assert result.returncode == 0, result.stderr
        assert difference(dense, zero_routers(load(tmp_path / host))) <= SAME * scale, host


@pytest.mark.parametrize("family, hosts", [
    ("llama", ["qwen2-moe", "mixtral", "glm4-moe", "solar-open", "granitemoe", "granitemoeshared"]),
    ("qwen3", ["qwen3-moe", "dots1", "exaone-moe"])])
@pytest.mark.parametrize("spelling", ["transformers 4", "transformers 5"])
def test_both_spellings_of_rope_are_read_by_every_host(family, hosts, spelling, moefy, tmp_path):
    """rope_theta and rope_scaling beside the other fields, or rope_parameters."""
    dense = save(family, tmp_path / "model", rope_parameters=dict(
        rope_type="linear", rope_theta=500.0, factor=4.0))
    config = config_of(tmp_path / "model")
    assert "rope_parameters" in config and "rope_theta" not in config
    if spelling == "transformers 4":
        del config["rope_parameters"]
        config |= dict(rope_theta=500.0, rope_scaling=dict(type="linear", factor=4.0))
        (tmp_path / "model/config.json").write_text(json.dumps(config))
    split(moefy, tmp_path / "model")

    for host in hosts:
        moefy("convert", tmp_path / "model", "map.h5", "-o", host, "--host", host)

        scale = max(float(output_of(dense).abs().max()), 1)
        assert difference(dense, zero_routers(load(tmp_path / host))) <= SAME * scale, host


@pytest.mark.parametrize("family, hosts", [
    ("llama", ["qwen2-moe", "mixtral", "glm4-moe", "solar-open", "granitemoe", "granitemoeshared"]),
    ("qwen3", ["qwen3-moe", "dots1", "exaone-moe"])])
@pytest.mark.parametrize("edit", ["null", "left out"])
def test_head_dim_is_read_off_the_tensors(family, hosts, edit, moefy, tmp_path):
    """Two heads of 12 in a model of width 16: classes would take 8 where config.json is silent."""
    dense = save(family, tmp_path / "model", head_dim=12)
    config = config_of(tmp_path / "model")
    config["head_dim"] = None
    if edit == "left out":
        del config["head_dim"]
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    split(moefy, tmp_path / "model")

    for host in hosts:
        moefy("convert", tmp_path / "model", "map.h5", "-o", host, "--host", host)

        assert config_of(tmp_path / host)["head_dim"] == 12
        assert difference(dense, zero_routers(load(tmp_path / host))) <= SAME * scale_of(dense), host


@pytest.mark.parametrize("partial", [1.0, 0.5])
def test_partial_rotary_embeddings_are_carried_by_glm4_moe(partial, moefy, tmp_path):
    torch.manual_seed(1)
    config = transformers.Phi3Config(**{**FAMILIES["phi3"][2], "hidden_size": 32, "rope_parameters": dict(
        rope_type="default", rope_theta=500.0, partial_rotary_factor=partial)})
    dense = transformers.AutoModelForCausalLM.from_config(config).eval()
    dense.save_pretrained(tmp_path / "model")
    split(moefy, tmp_path / "model")

    moefy("convert", tmp_path / "model", "map.h5", "-o", "out", "--host", "glm4-moe")
    refused = moefy("convert", tmp_path / "model", "map.h5", "-o", "other", "--host", "mixtral", check=False)

    assert difference(dense, zero_routers(load(tmp_path / "out"))) <= SAME * max(
        float(output_of(dense).abs().max()), 1)
    assert refused.returncode == (0 if partial == 1.0 else 2)


# host, family, whether top-k may be edited after the conversion
TOP_K = [("qwen2-moe", "llama", True), ("glm4-moe", "llama", True), ("qwen3-moe", "qwen3", True),
         ("dots1", "qwen3", True), ("exaone-moe", "qwen3", True), ("solar-open", "llama", True),
         ("mixtral", "llama", False), ("granitemoe", "granite", False), ("granitemoeshared", "gemma", False)]


@pytest.mark.parametrize("host, family, editable", TOP_K)
def test_two_experts_a_token_are_the_masked_dense_model(host, family, editable, moefy, tmp_path):
    """With k experts a token, the output is the dense model's with the FFN masked to those experts."""
    dense = write_tiny(family, tmp_path / "model")
    split(moefy, tmp_path / "model")
    moefy("convert", tmp_path / "model", "map.h5", "-o", "out", "--host", host, *(() if editable else ("--top-k", 2)))
    all_on = load(tmp_path / "out") if editable else None
    if editable:
        edit_config(tmp_path / "out", num_experts_per_tok=2)

    converted = load(tmp_path / "out")

    moefy("verify", tmp_path / "model", "out")
    for layer, (labels, router) in enumerate(routers_of(moefy.folder / "map.h5")):
        mask_ffn(dense.model.layers[layer].mlp, labels, router, 2)
    scale = max(float(output_of(converted).abs().max()), 1)
    assert difference(dense, converted) <= CLOSE * scale
    # The mask matters: the bound above is no coincidence.
    assert not editable or difference(dense, all_on) > 5 * CLOSE * scale
    if not editable:
        edit_config(tmp_path / "out", num_experts_per_tok=4)
        result = moefy("verify", tmp_path / "model", "out", check=False)
        assert result.returncode != 0 and "num_experts_per_tok" in result.stdout + result.stderr


@pytest.mark.parametrize("host, family", [("glm4-moe", "llama"), ("solar-open", "llama"), ("dots1", "qwen3"),
                                          ("exaone-moe", "qwen3")])
def test_a_selection_bias_chooses_what_it_chooses_beside_unscaled_logits(host, family, moefy, tmp_path):
    dense = write_tiny(family, tmp_path / "model")
    split(moefy, tmp_path / "model")
    subprocess.run([helper("convert/bias_routers"), tmp_path / "map.h5", tmp_path / "biased.h5"], check=True)
    for name in ("map", "biased"):
        moefy("convert", tmp_path / "model", name + ".h5", "-o", name, "--host", host, "--top-k", 2)
    moefy("verify", tmp_path / "model", "biased", "--bound")

    unbiased, biased = load(tmp_path / "map"), load(tmp_path / "biased")

    for layer, (labels, router) in enumerate(routers_of(tmp_path / "biased.h5")):
        mask_ffn(dense.model.layers[layer].mlp, labels, router, 2, bias_of(tmp_path / "biased.h5", layer))
    scale = max(float(output_of(biased).abs().max()), 1)
    assert difference(dense, biased) <= CLOSE * scale
    assert difference(unbiased, biased) > 5 * CLOSE * scale
    assert_restored(moefy, tmp_path / "model", tmp_path / "biased")


def test_an_intercept_of_the_ridge_router_is_the_hosts_selection_bias(moefy, tmp_path):
    dense = write_tiny("qwen3", tmp_path / "model")
    split(moefy, tmp_path / "model")
    write_recordings(moefy, tmp_path / "model", tmp_path / "rec.h5", 300)
    moefy("route", tmp_path / "model", "map.h5", "--router", "ridge", "--selection-bias", "--recordings", "rec.h5")
    moefy("convert", tmp_path / "model", "map.h5", "-o", "out", "--host", "dots1", "--top-k", 2)
    moefy("verify", tmp_path / "model", "out", "--bound")
    refused = moefy("convert", tmp_path / "model", "map.h5", "-o", "other", "--host", "qwen3-moe", check=False)
    assert refused.returncode == 2 and "its router has no bias" in refused.stderr

    for layer, (labels, router) in enumerate(routers_of(tmp_path / "map.h5")):
        bias = bias_of(tmp_path / "map.h5", layer)
        assert bias.abs().min() > 0
        mask_ffn(dense.model.layers[layer].mlp, labels, router, 2, bias)
    converted = load(tmp_path / "out")
    assert difference(dense, converted) <= CLOSE * max(float(output_of(converted).abs().max()), 1)


def bias_of(map_file, layer):
    import h5py
    with h5py.File(map_file, "r") as file:
        return torch.from_numpy(file[f"layers/{layer:05d}/router/bias"][()])


def routers_of(map_file):
    """(label of every neuron, router) of each layer of a map."""
    import h5py
    with h5py.File(map_file, "r") as file:
        for layer in range(LAYERS):
            group = file[f"layers/{layer:05d}"]
            yield torch.from_numpy(group["labels"][()]).long(), torch.from_numpy(group["router/weight"][()])


@pytest.mark.parametrize("name", DENSE_ONLY)
def test_families_without_a_host_say_so(name, moefy, tmp_path):
    write_tiny(name, tmp_path / "model")
    split(moefy, tmp_path / "model")

    result = moefy("convert", tmp_path / "model", "map.h5", "-o", "out", check=False)

    assert result.returncode == 2
    assert "--host dense" in result.stderr
    assert not (tmp_path / "out").exists()


def test_models_with_several_files_convert_and_restore(moefy, tmp_path):
    write_tiny("llama", tmp_path / "model", max_shard_size="6KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    split(moefy, tmp_path / "model")

    moefy("convert", tmp_path / "model", "map.h5", "-o", "out", "--shard-size", "5K")

    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    assert difference(load_tiny("llama", tmp_path / "model"), zero_routers(load(tmp_path / "out"))) < 1e-3
    assert_restored(moefy, tmp_path / "model", tmp_path / "out")
