"""moefy's safetensors against the safetensors library, in both directions."""

import json
import subprocess

import pytest
import torch
from safetensors import safe_open

from conftest import program_path
from tiny_models import FAMILIES, LAYERS, NEURONS, write_tiny


def test_the_library_reads_what_the_writer_wrote(tmp_path):
    helper = program_path().parents[1] / "tests/checkpoint/write_sample_checkpoint"
    subprocess.run([helper, tmp_path], check=True)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    expected = {
        "bytes": torch.arange(3, dtype=torch.uint8),
        "floats": torch.arange(10, dtype=torch.float32).reshape(2, 5),
        "halves": torch.arange(3, dtype=torch.float16),
        "brains": torch.arange(8, dtype=torch.bfloat16).reshape(2, 2, 2),
        "scalar": torch.tensor(0.0),
        "nothing": torch.zeros(0, 4),
    }

    assert index["weight_map"].keys() == expected.keys()
    assert len(set(index["weight_map"].values())) == 2
    assert index["metadata"]["total_size"] == sum(t.numel() * t.itemsize for t in expected.values())
    for name, tensor in expected.items():
        with safe_open(tmp_path / index["weight_map"][name], "pt") as file:
            assert file.metadata() == {"format": "pt"}
            read = file.get_tensor(name)
        assert read.dtype == tensor.dtype
        assert torch.equal(read, tensor), name


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_program_reads_what_transformers_saved(name, dtype, moefy, tmp_path):
    dense = write_tiny(name, tmp_path / "model", dtype=dtype, max_shard_size=4000)

    model, *layers = moefy.json_lines("inspect", tmp_path / "model")

    assert model["num_layers"] == (2 * LAYERS + 1 if name.startswith("t5") else LAYERS)
    assert model["parameters"] >= dense.num_parameters()
    for layer in layers:
        assert layer["num_neurons"] == (64 if name == "gpt2-default-width" else NEURONS)
        assert {f"up {'F32' if dtype == torch.float32 else 'BF16'}"} <= set(layer["tensors"])
