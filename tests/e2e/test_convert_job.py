"""convert, verify and restore as commands: exit codes, what stands in the way, ranks, messages."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conftest import write_llama


@pytest.fixture
def converted(moefy, llama):
    """A dense model, its map and its conversion, in the test's folder."""
    moefy("split", llama, "-o", "map.h5", "--method", "random", "--experts", 4)
    moefy("convert", llama, "map.h5", "-o", "out")
    return moefy.folder / "out"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def only_shard(folder):
    (path,) = folder.glob("*.safetensors")
    return path


def change(folder, edit):
    """Rewrites the weights after edit(tensors)."""
    tensors = load_file(only_shard(folder))
    edit(tensors)
    save_file(tensors, only_shard(folder), metadata={"format": "pt"})


def test_names_host_reason_counts_and_the_key_to_edit(moefy, llama):
    moefy("split", llama, "-o", "map.h5", "--method", "random", "--experts", 4)

    text = moefy("convert", llama, "map.h5", "-o", "out", "--top-k", 2).stderr

    assert "host qwen2-moe: 4 experts are a power of two" in text
    assert "num_experts_per_tok" in text
    assert "split, not copied" in text


def test_json_has_the_counts(moefy, llama):
    moefy("split", llama, "-o", "map.h5", "--method", "random", "--experts", 4)

    (line,) = moefy.json_lines("convert", llama, "map.h5", "-o", "out", "--top-k", 1)

    in_experts = 3 * 3 * 32 * 96
    assert line["parameters_in_experts"] == in_experts
    assert line["parameters_after"] - line["parameters_active"] == in_experts // 4 * 3
    assert line["host"] == "qwen2-moe" and line["top_k_editable"] is True


def test_same_command_again_is_already_done(moefy, llama, converted):
    before = contents(converted)

    result = moefy("convert", llama, "map.h5", "-o", "out")

    assert "already done" in result.stderr
    assert contents(converted) == before


def test_other_options_are_refused_unless_forced(moefy, llama, converted):
    result = moefy("convert", llama, "map.h5", "-o", "out", "--top-k", 2, check=False)

    assert result.returncode == 2
    assert "top_k: there 4, now 2" in result.stderr
    moefy("convert", llama, "map.h5", "-o", "out", "--top-k", 2, "--force")
    assert json.loads((converted / "config.json").read_text())["num_experts_per_tok"] == 2


def test_a_folder_of_somebody_else_is_left_alone(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "map.h5", "--method", "random", "--experts", 4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("all I have")

    result = moefy("convert", llama, "map.h5", "-o", "out", check=False)

    assert result.returncode == 2
    assert (tmp_path / "out" / "thesis.txt").read_text() == "all I have"


def test_companion_files_are_copied(moefy, llama, converted, tmp_path):
    for name in ("tokenizer.json", "generation_config.json", "LICENSE", "merges.txt"):
        (llama / name).write_text(name)
    (llama / "secrets.txt").write_text("no")
    (llama / "README.md").write_text("---\nlicense: apache-2.0\n---\n# base\n")

    moefy("convert", llama, "map.h5", "-o", "out", "--force")

    for name in ("tokenizer.json", "generation_config.json", "LICENSE", "merges.txt"):
        assert (converted / name).read_text() == name
    assert not (converted / "secrets.txt").exists()
    assert "license: apache-2.0" in (converted / "README.md").read_text()


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_write_the_same_bytes(ranks, moefy, llama, tmp_path):
    moefy("split", llama, "-o", "map.h5", "--method", "random", "--experts", 4)
    moefy("convert", llama, "map.h5", "-o", "alone", "--shard-size", "20K")

    moefy("convert", llama, "map.h5", "-o", "out", "--shard-size", "20K", ranks=ranks)

    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 3
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    moefy("verify", llama, "out", ranks=ranks)
    moefy("restore", "out", "-o", "restored", ranks=ranks)
    assert load_file(tmp_path / "restored/model.safetensors").keys() == load_file(only_shard(llama)).keys()


def flip(tensors):
    bits = tensors["model.layers.1.mlp.experts.2.up_proj.weight"].view(np.uint32)
    bits[5, 3] ^= 1


def swap(tensors):
    for part in ("gate_proj", "up_proj", "down_proj"):
        names = [f"model.layers.2.mlp.experts.{expert}.{part}.weight" for expert in (0, 1)]
        tensors[names[0]], tensors[names[1]] = tensors[names[1]], tensors[names[0]]


@pytest.mark.parametrize("edit, words", [
    (flip, ("layer 1", "expert 2", "neuron", "up_proj")),
    (swap, ("layer 2", "expert 0", "expert 1")),
])
@pytest.mark.parametrize("ranks", [0, 2])
def test_verify_says_what_differs(edit, words, ranks, moefy, llama, converted):
    change(converted, edit)

    result = moefy("verify", llama, "out", ranks=ranks, check=False)

    assert result.returncode == 1
    for word in words:
        assert word in result.stdout


def test_verify_sees_a_changed_config_key(moefy, llama, converted):
    config = json.loads((converted / "config.json").read_text())
    (converted / "config.json").write_text(json.dumps(config | {"norm_topk_prob": True}))

    result = moefy("verify", llama, "out", check=False)

    assert result.returncode == 1
    assert "norm_topk_prob" in result.stdout


def test_verify_against_another_model_differs(moefy, llama, converted, tmp_path):
    other = write_llama(tmp_path / "other", seed=1)

    result = moefy("verify", other, "out", check=False)

    assert result.returncode == 1
    assert "model.layers.0.mlp" in result.stdout


def test_verify_of_a_damaged_folder_is_an_input_error(moefy, llama, converted):
    only_shard(converted).unlink()

    assert moefy("verify", llama, "out", check=False).returncode == 3


def test_map_of_another_model_is_an_input_error(moefy, llama, tmp_path):
    other = write_llama(tmp_path / "other", seed=1)
    moefy("split", other, "-o", "map.h5", "--method", "random", "--experts", 4)

    result = moefy("convert", llama, "map.h5", "-o", "out", check=False)

    assert result.returncode == 3
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_restore_needs_nothing_but_the_output(moefy, llama, converted, tmp_path):
    expected = load_file(only_shard(llama))
    config = (llama / "config.json").read_bytes()
    shutil.move(converted, tmp_path / "moved")
    shutil.rmtree(llama)
    (tmp_path / "map.h5").unlink()

    moefy("restore", "moved", "-o", "back")

    found = load_file(tmp_path / "back/model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensor.tobytes() == found[name].tobytes()
    assert (tmp_path / "back/config.json").read_bytes() == config


@pytest.mark.parametrize("ranks", [0, 2])
def test_restore_again_is_done_already(ranks, moefy, llama, converted, tmp_path):
    moefy("restore", "out", "-o", "back", "--threads", 2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "back").iterdir()}

    again = moefy("restore", "out", "-o", "back", ranks=ranks)

    assert "already done" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "back").iterdir()} == before


def set_config(folder):
    (folder / "config.json").write_text("{}")


def one_bit(folder):
    change(folder, lambda tensors: tensors["model.embed_tokens.weight"].view(np.uint32).__setitem__((0, 0), 7))


def drop_tensor(folder):
    change(folder, lambda tensors: tensors.pop("model.norm.weight"))


@pytest.mark.parametrize("edit, words", [(set_config, "config.json"), (one_bit, "model.embed_tokens.weight"),
                                         (drop_tensor, "model.norm.weight"), (shutil.rmtree, "back")])
def test_restore_refuses_what_is_in_the_way(edit, words, moefy, llama, converted, tmp_path):
    moefy("restore", "out", "-o", "back")
    edit(tmp_path / "back")
    (tmp_path / "back").mkdir(exist_ok=True)

    result = moefy("restore", "out", "-o", "back", check=False)

    assert result.returncode == 2, result.stderr
    assert "is in the way" in result.stderr and words in result.stderr and "--force" in result.stderr
    moefy("restore", "out", "-o", "back", "--force")
    assert load_file(tmp_path / "back/model.safetensors").keys() == load_file(only_shard(llama)).keys()


def test_a_score_scale_is_no_equality(moefy, llama, converted):
    assert "with all experts on\n" in moefy("convert", llama, "map.h5", "-o", "plain").stderr
    assert "--score-scale" not in moefy("verify", llama, "plain").stdout

    told = "up to a factor 3 of the routed experts (--score-scale)"
    assert told in moefy("convert", llama, "map.h5", "-o", "scaled", "--score-scale", 3).stderr
    assert told in moefy("verify", llama, "scaled").stdout
    assert moefy.json_lines("verify", llama, "scaled")[0]["routed_scale"] == [3, 3]


def test_no_verify_is_logged(moefy, llama):
    moefy("split", llama, "-o", "map.h5", "--method", "random", "--experts", 4)

    assert "--no-verify" in moefy("convert", llama, "map.h5", "-o", "out", "--no-verify").stderr


def test_several_usage_errors_are_told_at_once(moefy, llama):
    result = moefy("convert", llama, "map.h5", "-o", "out", "--gate-scale", "3", "--align", 0, "--top-k", 0,
                   check=False)

    assert result.returncode == 2
    for word in ("--gate-scale", "--align", "--top-k"):
        assert word in result.stderr


def test_counts_without_a_host_name_the_nearest(moefy, llama):
    moefy("split", llama, "-o", "map.h5", "--method", "random", "--experts", 6, "--shared", 1)

    result = moefy("convert", llama, "map.h5", "-o", "out", "--top-k", 3, "--host", "qwen2-moe", check=False)

    assert result.returncode == 2
    assert "--top-k 2" in result.stderr and "--host dense" in result.stderr
