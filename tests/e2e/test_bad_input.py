"""Bad input of every kind: one clear message, the right exit code, nothing left behind."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conftest import write_llama


def fails(moefy, tmp_path, code, *words, model="llama"):
    before = sorted(p.name for p in tmp_path.iterdir())
    result = moefy("split", tmp_path / model, "-o", "map.h5", "--experts", 8, check=False)
    lines = result.stderr.strip().splitlines()
    assert result.returncode == code, result.stderr
    assert lines[-1].startswith(f"moefy: exit {code} ("), result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert "terminate" not in result.stderr and "HDF5-DIAG" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    return result


def header_of(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_header(path, header, data, raw=None):
    text = (raw if raw is not None else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


FIRST = "model.layers.0.mlp.gate_proj.weight"


def change_header(change):
    def apply(folder):
        path = folder / "model.safetensors"
        header, data = header_of(path)
        change(header)
        write_header(path, header, data)

    return apply


def set_entry(**values):
    return change_header(lambda header: header[FIRST].update(values))


def duplicate_name(folder):
    path = folder / "model.safetensors"
    header, data = header_of(path)
    text = json.dumps(header)
    entry = json.dumps({FIRST: header[FIRST]})[1:-1]
    write_header(path, None, data, raw=text[:-1] + ", " + entry + "}")


def truncate(share):
    def apply(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return apply


def header_length(value):
    def apply(folder):
        path = folder / "model.safetensors"
        data = path.read_bytes()
        path.write_bytes(struct.pack("<Q", value & (2**64 - 1)) + data[8:])

    return apply


def edit_config(**values):
    def apply(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        for key, value in values.items():
            if value is None:
                config.pop(key)
            else:
                config[key] = value
        path.write_text(json.dumps(config))

    return apply


def write_config(text):
    return lambda folder: (folder / "config.json").write_text(text)


def set_weight(value):
    def apply(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors[FIRST][3, 4] = value
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def save_as(dtype):
    def apply(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors[FIRST] = tensors[FIRST].astype(dtype)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


CASES = {
    "empty file": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors"),
    "seven bytes": (lambda f: (f / "model.safetensors").write_bytes(b"1234567"), "model.safetensors"),
    "half the file": (truncate(0.5), "model.safetensors"),
    "last byte missing": (truncate(0.999999), "model.safetensors"),
    "header length 2^60": (header_length(2**60), "model.safetensors"),
    "header length -1": (header_length(-1), "model.safetensors"),
    "header not JSON": (header_length(100), "model.safetensors"),
    "offsets beyond the file": (set_entry(data_offsets=[0, 2**50]), FIRST),
    "negative offset": (set_entry(data_offsets=[-8, 8]), FIRST),
    "overlapping offsets": (set_entry(data_offsets=[4, 12292]), FIRST),
    "shape product overflows": (set_entry(shape=[2**40, 2**40]), FIRST),
    "negative shape": (set_entry(shape=[-96, -32]), FIRST),
    "shape of another size": (set_entry(shape=[96, 33]), FIRST),
    "unknown dtype": (set_entry(dtype="F33"), FIRST),
    "duplicate name": (duplicate_name, FIRST),
    "integer FFN weights": (save_as(np.int32), FIRST),
    "no config.json": (lambda f: (f / "config.json").unlink(), "config.json"),
    "config.json not JSON": (write_config("{"), "config.json"),
    "config.json a list": (write_config("[]"), "config.json"),
    "unknown family": (edit_config(model_type="lama"), "llama"),
    "no family": (edit_config(model_type=None), "model_type"),
    "more layers than tensors": (edit_config(num_hidden_layers=4), "4"),
    "fewer layers than tensors": (edit_config(num_hidden_layers=2), "2"),
    "another width": (edit_config(intermediate_size=97), "97"),
    "another hidden size": (edit_config(hidden_size=64), "64"),
    "quantised": (edit_config(quantization_config={"quant_method": "gptq"}), "gptq"),
    "NaN": (set_weight(np.nan), FIRST),
    "infinity": (set_weight(-np.inf), "row 3"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_checkpoint(moefy, llama, tmp_path, name):
    damage, word = CASES[name]
    damage(llama)

    fails(moefy, tmp_path, 3, word)


def shard(folder):
    """The model in two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: file for file, part in parts.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_shards_give_the_same_map_as_one_file(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "one.h5", "--experts", 8, "--reproducible")
    shard(llama)

    moefy("split", llama, "-o", "two.h5", "--experts", 8, "--reproducible")

    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


@pytest.mark.parametrize("damage", ["missing shard", "name in no shard", "name not in index", "path outside"])
def test_bad_index(moefy, llama, tmp_path, damage):
    index = shard(llama)
    names = sorted(index["weight_map"])
    if damage == "missing shard":
        (llama / "b.safetensors").unlink()
        word = "b.safetensors"
    elif damage == "name in no shard":
        index["weight_map"]["ghost.weight"] = "a.safetensors"
        word = "ghost.weight"
    elif damage == "name not in index":
        del index["weight_map"][names[0]]
        word = names[0]
    else:
        index["weight_map"][names[0]] = "../llama/a.safetensors"
        word = ".."
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))

    fails(moefy, tmp_path, 3, word)


@pytest.mark.parametrize("ranks", [2, 3])
def test_an_error_on_any_rank_is_told_once(moefy, tmp_path, ranks):
    model = write_llama(tmp_path / "llama", layers=6)
    tensors = load_file(model / "model.safetensors")
    for layer in range(1, 6):
        tensors[f"model.layers.{layer}.mlp.gate_proj.weight"][0, 0] = np.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    result = moefy("split", model, "-o", "map.h5", "--experts", 8, ranks=ranks, check=False)

    ours = [line for line in result.stderr.splitlines() if line.startswith("moefy: ")]
    assert len(ours) == 2, result.stderr
    assert "NaN" in ours[0] or "nan" in ours[0]
    assert ours[1] == "moefy: exit 3 (input data)"
    assert not (tmp_path / "map.h5").exists()


def test_a_map_of_another_model_is_refused(moefy, llama, tmp_path):
    other = write_llama(tmp_path / "other", seed=1)
    moefy("split", other, "-o", "map.h5", "--experts", 8)

    result = moefy("convert", llama, "map.h5", "-o", "out", check=False)

    assert result.returncode == 3, result.stderr
    assert not (tmp_path / "out").exists()


def test_a_map_cut_or_flipped_is_refused_everywhere(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "map.h5", "--experts", 8)
    data = (tmp_path / "map.h5").read_bytes()
    broken = bytearray(data)
    broken[len(data) // 2] ^= 1
    (tmp_path / "flipped.h5").write_bytes(broken)
    (tmp_path / "cut.h5").write_bytes(data[:-100])

    for name in ("flipped.h5", "cut.h5"):
        for command in (["inspect", name], ["convert", llama, name, "-o", "out"], ["diff", name, "map.h5"]):
            result = moefy(*command, check=False)
            assert result.returncode == 3, (command, result.stderr)
            assert name in result.stderr
            assert "HDF5-DIAG" not in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_exit_4(moefy, llama, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)

    result = moefy("split", llama, "-o", folder / "map.h5", "--experts", 8, check=False)

    assert result.returncode == 4


def test_a_missing_output_folder_is_exit_4(moefy, llama):
    result = moefy("split", llama, "-o", "no/such/folder/map.h5", "--experts", 8, check=False)

    assert result.returncode == 4, result.stderr
    assert "no/such/folder" in result.stderr


def test_an_output_never_replaces_what_is_read(moefy, llama, tmp_path):
    """Not even with --force: the model, the map, the converted folder, or a folder that holds one."""
    moefy("split", llama, "-o", "map.h5", "--experts", 8)
    moefy("convert", llama, "map.h5", "-o", "out")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for arguments in [
        ("split", llama, "-o", llama, "--experts", 8), ("split", llama, "-o", "out", "--experts", 8),
        ("split", llama, "-o", llama / "config.json", "--experts", 8),
        ("route", llama, "map.h5", "--router", "zero", "-o", llama / "model.safetensors"),
        ("convert", llama, "map.h5", "-o", llama), ("convert", llama, "map.h5", "-o", f"{llama}/"),
        ("convert", llama, "map.h5", "-o", "map.h5"), ("convert", llama, "map.h5", "-o", "."),
        ("convert", llama, "map.h5", "-o", tmp_path.parent), ("restore", "out", "-o", "out"),
        ("inspect", "map.h5", "--html", "map.h5"), ("inspect", "map.h5", "--export", "json", "-o", "map.h5"),
    ]:
        result = moefy(*arguments, "--force", check=False)

        assert result.returncode == 2, (arguments, result.stderr)
        assert "choose another place" in result.stderr or "is a folder" in result.stderr
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_force_replaces_models_and_nothing_else(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "map.h5", "--experts", 8)
    moefy("convert", llama, "map.h5", "-o", "out")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/to.txt").write_text("Dear")
    for arguments in [("convert", llama, "map.h5", "-o", "letters"), ("restore", "out", "-o", "letters"),
                      ("convert", llama, "map.h5", "-o", "letters/to.txt")]:
        result = moefy(*arguments, "--force", check=False)

        assert result.returncode == 2, result.stderr
        assert "no config.json" in result.stderr or "is a file" in result.stderr
        assert (tmp_path / "letters/to.txt").read_text() == "Dear"
    (tmp_path / "letters/to.txt").unlink()
    moefy("convert", llama, "map.h5", "-o", "letters", "--force")


def test_names_need_not_be_utf8(moefy, llama, tmp_path):
    """Linux file names are bytes; what is told of them in JSON is readable text."""
    model, map_file, out, back = (os.fsdecode(name) for name in (b"m\xff", b"map\xff.h5", b"out\xff", b"back\xff"))
    llama.rename(tmp_path / model)

    moefy("split", model, "-o", map_file, "--experts", 8)
    moefy("route", model, map_file, "--router", "mean-gate")
    line, = moefy.json_lines("convert", model, map_file, "-o", out)
    moefy("verify", model, out)
    moefy("restore", out, "-o", back, "--json")

    assert line["output"] == "out\ufffd"
    assert (tmp_path / back / "config.json").read_bytes() == (tmp_path / model / "config.json").read_bytes()
    moefy("inspect", map_file, "--html", os.fsdecode(b"page\xff.html"))


def test_a_log_that_one_rank_cannot_write_is_told(moefy, llama, tmp_path):
    (tmp_path / "run.log.1").mkdir()

    result = moefy("split", llama, "-o", "map.h5", "--experts", 8, "--log", "run.log", ranks=2, check=False)

    assert "moefy: exit 4 (file system)" in result.stderr and "run.log.1" in result.stderr
    assert "no answer" not in result.stderr and not (tmp_path / "map.h5").exists()
