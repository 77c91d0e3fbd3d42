"""split: the map that comes out, whatever runs it, and what stands in its way."""

import json

import h5py
import numpy as np
import pytest

from conftest import write_llama


def split(moefy, model, output, *more, **options):
    return moefy("split", model, "-o", output, "--experts", 8, *more, **options)


def test_every_neuron_is_in_one_expert_of_equal_size(moefy, llama, tmp_path):
    split(moefy, llama, "map.h5")

    with h5py.File(tmp_path / "map.h5") as file:
        assert list(file["layers"]) == ["00000", "00001", "00002"]
        for layer in file["layers"].values():
            labels = layer["labels"][:]
            assert np.bincount(labels, minlength=8).tolist() == [12] * 8
            assert sorted(layer["members"][:].tolist()) == list(range(96))
            assert layer.attrs["duality_gap"] == 0
            assert layer.attrs["inertia"] < layer.attrs["inertia_random"]


def test_inertia_and_centroids_follow_from_labels_and_weights(moefy, llama, tmp_path):
    from safetensors.numpy import load_file

    split(moefy, llama, "map.h5")

    gate = load_file(llama / "model.safetensors")["model.layers.1.mlp.gate_proj.weight"]
    rows = gate / np.linalg.norm(gate, axis=1, keepdims=True)
    with h5py.File(tmp_path / "map.h5") as file:
        layer = file["layers/00001"]
        labels = layer["labels"][:]
        means = np.stack([rows[labels == e].mean(0) for e in range(8)])
        inertia = ((rows - means[labels]) ** 2).sum()
        np.testing.assert_allclose(layer["centroids"][:], means, atol=1e-6)
        np.testing.assert_allclose(layer.attrs["inertia"], inertia, rtol=1e-5)
        unit = means / np.linalg.norm(means, axis=1, keepdims=True)
        np.testing.assert_allclose(layer["router/weight"][:], unit, atol=1e-5)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("feed", ["local", "coordinator"])
def test_ranks_threads_and_feed_do_not_change_a_byte(moefy, llama, tmp_path, ranks, threads, feed):
    split(moefy, llama, "alone.h5", "--reproducible")

    split(moefy, llama, "many.h5", "--reproducible", "--threads", threads, "--feed", feed, ranks=ranks)

    assert (tmp_path / "many.h5").read_bytes() == (tmp_path / "alone.h5").read_bytes()


@pytest.mark.parametrize("method", ["random", "contiguous"])
def test_baselines_are_balanced_and_named(moefy, llama, tmp_path, method):
    split(moefy, llama, "map.h5", "--method", method)

    with h5py.File(tmp_path / "map.h5") as file:
        layer = file["layers/00000"]
        assert layer.attrs["method"] == method
        assert layer.attrs["stop_reason"] == "not_clustered" or method in layer.attrs["method"]
        labels = layer["labels"][:]
        assert np.bincount(labels).tolist() == [12] * 8
        if method == "contiguous":
            assert labels.tolist() == [i // 12 for i in range(96)]


def test_neurons_that_do_not_divide_evenly(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "map.h5", "--experts", 7)

    with h5py.File(tmp_path / "map.h5") as file:
        sizes = np.bincount(file["layers/00000/labels"][:])
        assert sorted(sizes) == [13, 13, 14, 14, 14, 14, 14]


def test_shared_experts_come_first_and_are_as_wide(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "map.h5", "--experts", 6, "--shared", 2)

    with h5py.File(tmp_path / "map.h5") as file:
        layer = file["layers/00000"]
        labels = layer["labels"][:]
        assert (labels == -1).sum() == 24
        assert layer["expert_offset"][0] == 24
        assert set(layer["members"][:24]) == set(np.flatnonzero(labels == -1))


def test_a_second_run_is_already_done_and_other_options_are_refused(moefy, llama, tmp_path):
    split(moefy, llama, "map.h5")
    before = (tmp_path / "map.h5").read_bytes()

    again = split(moefy, llama, "map.h5")
    other = split(moefy, llama, "map.h5", "--seed", 1, check=False)

    assert "already done" in again.stderr
    assert other.returncode == 2 and "seed" in other.stderr
    assert (tmp_path / "map.h5").read_bytes() == before
    split(moefy, llama, "map.h5", "--seed", 1, "--force")
    assert (tmp_path / "map.h5").read_bytes() != before


def test_warm_start_from_its_own_map_changes_nothing(moefy, llama, tmp_path):
    split(moefy, llama, "cold.h5")

    split(moefy, llama, "warm.h5", "--init-from", "cold.h5")

    with h5py.File(tmp_path / "cold.h5") as cold, h5py.File(tmp_path / "warm.h5") as warm:
        for name in cold["layers"]:
            assert (cold[f"layers/{name}/labels"][:] == warm[f"layers/{name}/labels"][:]).all()
            assert warm[f"layers/{name}"].attrs["iterations"] == 1
            assert warm[f"layers/{name}"].attrs["stop_reason"] == "fixpoint"


def test_nan_weights_name_the_place_and_leave_nothing(moefy, tmp_path):
    from safetensors.numpy import load_file, save_file

    model = write_llama(tmp_path / "nan")
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.2.mlp.gate_proj.weight"][5, 7] = np.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})

    result = split(moefy, model, "map.h5", "--layers", "2", check=False)

    assert result.returncode == 3
    for word in ("model.layers.2.mlp.gate_proj.weight", "row 5", "column 7", "layer 2"):
        assert word in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("moefy: exit 3")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nan"]


def test_changed_weights_are_not_taken_for_the_same_model(moefy, llama, tmp_path):
    from safetensors.numpy import load_file, save_file

    split(moefy, llama, "map.h5")
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})

    result = split(moefy, llama, "map.h5", check=False)

    assert result.returncode == 2
    assert "layer 1" in result.stderr


def test_dry_run_touches_nothing_and_plans_every_layer(moefy, llama, tmp_path):
    lines = moefy.json_lines("split", llama, "-o", "map.h5", "--experts", 8, "--dry-run")

    assert lines[0]["type"] == "plan"
    assert [layer["layer"] for layer in lines[0]["layers"]] == [0, 1, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama"]


@pytest.mark.parametrize("command", ["split", "plan"])
def test_init_faiss_gpu_is_refused_before_any_file_is_touched(command, moefy, tmp_path):
    result = moefy(command, "nowhere", "-o", "map.h5", "--experts", 8, "--init", "faiss-gpu",
                   check=False)

    assert result.returncode == 2
    assert ("--init faiss-gpu: built without FAISS on the GPU; configure with -DMOEFY_FAISS_GPU=ON"
            in result.stderr)
    assert "nowhere" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options, ranks, gpu_of_rank, shared_by", [
    (["--gpus", 3], 3, [0, 1, 2], 1),
    (["--gpus", 2, "--ranks", 5, "--share-devices"], 5, [0, 1, 0, 1, 0], 3),
    (["--gpus", 4, "--ranks", 1], 1, [0], 1)])
def test_plan_says_which_rank_uses_which_gpu(options, ranks, gpu_of_rank, shared_by, moefy, llama):
    plan, = moefy.json_lines("plan", llama, "--experts", 8, *options)

    assert plan["ranks"] == ranks
    layout = plan["gpu_layout"]
    assert layout["gpu_of_rank"] == gpu_of_rank and layout["ranks_a_gpu"] == shared_by
    assert layout["memory_of_a_gpu"] == shared_by * plan["peak_device_memory"]
    assert f"GPUs             {options[1]}, " in moefy(
        "plan", llama, "--experts", 8, *options).stdout


def test_plan_lets_ranks_share_a_gpu_only_if_told_to(moefy, llama):
    result = moefy("plan", llama, "--experts", 8, "--gpus", 2, "--ranks", 5, check=False)

    assert result.returncode == 2
    assert "--ranks 5, --gpus 2: more ranks than GPUs need --share-devices" in result.stderr


def test_json_lines_describe_every_layer(moefy, llama):
    lines = moefy.json_lines("split", llama, "-o", "map.h5", "--experts", 8, "--quiet")

    layers = [line for line in lines if line["type"] == "layer"]
    assert len(layers) == 3
    assert all(line["schema_version"] == 1 for line in lines)
    assert json.dumps(lines)
