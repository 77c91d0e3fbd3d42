"""inspect and diff: what they say is what the files hold."""

import json

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file


@pytest.fixture
def split_map(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "map.h5", "--experts", 8)
    return tmp_path / "map.h5"


def test_map_as_table_and_json(moefy, split_map):
    text = moefy("inspect", split_map).stdout
    lines = moefy.json_lines("inspect", split_map)

    assert "model.layers.2.mlp" in text
    layers = [line for line in lines if line["type"] == "layer"]
    with h5py.File(split_map) as file:
        for line, group in zip(layers, file["layers"].values(), strict=True):
            assert line["inertia"] == pytest.approx(group.attrs["inertia"])


def test_exports_hold_the_same_arrays(moefy, split_map, tmp_path):
    moefy("inspect", split_map, "--export", "safetensors", "-o", "map.safetensors")
    moefy("inspect", split_map, "--export", "json", "-o", "map.json")

    arrays = load_file(tmp_path / "map.safetensors")
    exported = json.loads((tmp_path / "map.json").read_text())
    with h5py.File(split_map) as file:
        for name, group in file["layers"].items():
            labels = [v for k, v in arrays.items() if name in k and k.endswith("labels")]
            np.testing.assert_array_equal(labels[0], group["labels"][:])
    assert json.dumps(exported)


def test_html_is_one_page_without_addresses(moefy, split_map, tmp_path):
    moefy("inspect", split_map, "--html", "report.html")

    page = (tmp_path / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "http://" not in page.replace("http://www.w3.org/", "") and "https://" not in page
    assert "model.layers.1.mlp" in page


def test_model_lists_its_layers(moefy, llama):
    lines = moefy.json_lines("inspect", llama)

    assert "model.layers.2.mlp" in json.dumps(lines)


def test_converted_directory(moefy, llama, split_map):
    moefy("convert", llama, split_map, "-o", "out")

    assert "qwen2-moe" in moefy("inspect", "out").stdout


def test_verify_accepts_its_model_and_refuses_another(moefy, llama, split_map):
    good = moefy("inspect", split_map, "--verify", "--model", llama)
    assert good.returncode == 0

    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.1.mlp.gate_proj.weight"] *= 1.5
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    bad = moefy("inspect", split_map, "--verify", "--model", llama, check=False)

    assert bad.returncode == 1
    assert "layer 1" in bad.stdout + bad.stderr
    assert bad.stderr.strip().splitlines()[-1] == "moefy: exit 1 (differs)"


def test_verify_needs_a_model(moefy, split_map):
    assert moefy("inspect", split_map, "--verify", check=False).returncode == 2


def test_diff_of_equal_and_of_different_maps(moefy, llama, split_map):
    moefy("split", llama, "-o", "other.h5", "--experts", 8, "--method", "random")

    equal = moefy("diff", split_map, split_map)
    different = moefy("diff", split_map, "other.h5", check=False)

    assert "equal" in equal.stdout
    assert different.returncode == 1
    lines = [json.loads(l) for l in moefy("diff", split_map, "other.h5", "--json", check=False).stdout.splitlines()]
    assert any("moved" in json.dumps(line) for line in lines)


def test_diff_knows_renamed_experts(moefy, llama, split_map, tmp_path):
    """Other sizes of experts in the order of the file: a contiguous split against itself moves nothing."""
    moefy("split", llama, "-o", "a.h5", "--experts", 8, "--method", "contiguous")
    moefy("split", llama, "-o", "b.h5", "--experts", 8, "--method", "contiguous", "--seed", 3)

    result = moefy("diff", "a.h5", "b.h5", "--json", check=False)

    layers = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(line.get("moved", 0) == 0 for line in layers)
