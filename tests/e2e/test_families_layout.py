"""The family files against transformers itself: names, shapes, and that they describe the whole FFN.

The reader below is a second one, independent of the program's.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ROOT
from tiny_models import FAMILIES, LAYERS, NEURONS, load_tiny, output_of, write_tiny


def as_list(value):
    return value if isinstance(value, list) else [value]


def family_file(model_type):
    for path in (ROOT / "configs/architectures").glob("*.json"):
        family = json.loads(path.read_text())
        if model_type in as_list(family["model_types"]):
            return family
    raise KeyError(model_type)


def rule_of(role, entry):
    """(name, axis of the neurons, part, parts, optional) of one tensor of a family file."""
    entry = {"name": entry} if isinstance(entry, str) else entry
    layout = entry.get("layout", "hidden-first" if role == "down" else "neuron-first")
    part, parts = entry.get("slice", [0, 1])
    return entry["name"], 0 if layout == "neuron-first" else 1, part, parts, entry.get("optional", False)


def ffn_tensors(family, config, tensors):
    """layer prefix -> [(role, full name, axis, part, parts)], as the family file says."""
    layers = {}
    for stack in family["stacks"]:
        count = next(config[key] for key in as_list(stack["num_layers"]) if config.get(key) is not None)
        choices = [(p, v) for p in as_list(stack["prefix"]) for v in as_list(stack["tensors"])]
        prefix, variant = max(
            choices,
            key=lambda c: sum(
                f"{c[0].format(layer=0)}.{rule_of(r, e)[0]}" in tensors for r, e in c[1].items()
            ),
        )
        for layer in range(count):
            place = prefix.format(layer=layer)
            rows = layers[place] = []
            for role, entry in variant.items():
                name, axis, part, parts, optional = rule_of(role, entry)
                name = f"{place}.{name}"
                if name in tensors or not optional:
                    rows.append((role, name, axis, part, parts))
    return layers


@pytest.mark.parametrize("name", FAMILIES)
def test_names_and_shapes_are_those_of_transformers(name, tmp_path):
    write_tiny(name, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    neurons = 64 if name == "gpt2-default-width" else NEURONS

    layers = ffn_tensors(family_file(config["model_type"]), config, tensors)

    assert len(layers) == (2 * LAYERS + 1 if name.startswith("t5") else LAYERS)
    for rows in layers.values():
        assert {"up", "down"} <= {role for role, *_ in rows}
        for role, tensor, axis, part, parts in rows:
            shape = tensors[tensor].shape
            assert len(shape) == (1 if role.endswith("_bias") else 2)
            if role != "down_bias":
                assert shape[axis] == parts * neurons, tensor


@pytest.mark.parametrize("name", FAMILIES)
def test_permuting_what_the_family_file_describes_changes_nothing(name, tmp_path):
    """Only true if axes and slices are right and no bias or scale of a neuron is forgotten."""
    dense = write_tiny(name, tmp_path)
    expected = output_of(dense)
    tensors = load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    generator = torch.Generator().manual_seed(1)

    for rows in ffn_tensors(family_file(config["model_type"]), config, tensors).values():
        neurons = next(tensors[t].shape[axis] // parts for r, t, axis, _, parts in rows if r == "up")
        order = torch.randperm(neurons, generator=generator)
        for role, tensor, axis, part, parts in rows:
            if role == "down_bias":
                continue
            pieces = list(tensors[tensor].chunk(parts, dim=axis))
            pieces[part] = pieces[part].index_select(axis, order)
            tensors[tensor] = torch.cat(pieces, dim=axis).contiguous()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    permuted = output_of(load_tiny(name, tmp_path))
    torch.testing.assert_close(permuted, expected, rtol=1e-4, atol=1e-4)


def test_every_family_file_has_a_model_here():
    covered = {model_type for model_type, *_ in FAMILIES.values()}
    for path in (ROOT / "configs/architectures").glob("*.json"):
        types = set(as_list(json.loads(path.read_text())["model_types"]))
        assert types & covered, f"add a line to tests/e2e/tiny_models.py for {path.name}"
