"""`moefy record --importance --clusters`, and the method that splits by it."""

import h5py
import numpy as np
import pytest
import torch

from tests.python.conftest import PROGRAM  # noqa: F401  (paths of the package)

H = torch.tensor([[1.0, 2, 0.5], [-1, 1, 2]])
GRADIENT = torch.tensor([[0.5, -1, 2], [0.5, 1, 0]])
EXPECTED = {
    ("feature-grad", "plain"): ([.5, 0, 1], [.5, 0, 1]),
    ("feature-grad", "l1"): ([.5, 1, 1], [.5, 0, 1]),
    ("feature-grad", "l2"): ([.25, 1, 2], [.5, 0, 2]),
    ("feature-change", "plain"): ([0, -.5, .5], [0, -.5, .5]),
    ("feature-change", "l1"): ([.5, 1.5, .5], [0, .5, .5]),
    ("feature-change", "l2"): ([.25, 2.5, .5], [0, .5, .5]),
}


@pytest.mark.parametrize("kind, kernel", EXPECTED)
def test_worked_example(kind, kernel):
    from moefy.importance import kernel_of, values_of_tokens

    q, k = values_of_tokens(kind, H, GRADIENT), kernel_of(kernel)
    sample, total = EXPECTED[kind, kernel]
    np.testing.assert_allclose(k(q).sum(0) / 2, sample)
    # The last row of totals is K of the sum over T = 2 tokens, divided by T.
    np.testing.assert_allclose(k(q.sum(0)) / 2, total)


def batches_of(*lengths, size=5):
    ids = torch.arange(len(lengths) * size).reshape(len(lengths), size) % 29 + 3
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def record(model, folder, batches, path, **options):
    import moefy

    moefy.record(model, batches, path, checkpoint=folder, dtype="float32", quiet=True, **options)
    with h5py.File(path) as file:
        return ({int(name): {part: values[:] for part, values in group.items()}
                 for name, group in file["importance"].items()}, dict(file["importance"].attrs))


def load(folder):
    from moefy.models import load_model

    return load_model(str(folder))


SAMPLE = ("feature-change", "sample", "l1")


def test_tokens_without_a_next_one_do_not_count(tiny, tmp_path):
    folder = tiny("llama")
    _, attributes = record(load(folder), folder, [batches_of(5, 3, 1)], tmp_path / "r.h5",
                           importance=SAMPLE)
    assert attributes["tokens"].tolist() == [4 + 2 + 0]
    assert (attributes["type"], attributes["level"], attributes["kernel"]) == SAMPLE


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3", "opt"])
@pytest.mark.parametrize("level", ["sample", "total"])
def test_vectors_are_the_gradients_of_the_loss(tiny, tmp_path, family, level):
    folder = tiny(family)
    model = load(folder)
    batch = batches_of(5, 5)
    found, _ = record(model, folder, [batch], tmp_path / "r.h5",
                      importance=("feature-change", level, "l1"))

    seen = {}
    from moefy.ffn_inputs import owner_of
    from moefy.models import ffn_layers

    layer = ffn_layers(str(folder))[0]

    def scale(module, arguments):
        seen["scale"] = torch.ones_like(arguments[0], requires_grad=True)
        return (arguments[0] * seen["scale"], *arguments[1:])

    hook = owner_of(model, layer, "down").register_forward_pre_hook(scale)
    loss = model(input_ids=batch["input_ids"], labels=batch["input_ids"]).loss * 8  # the sum
    loss.backward()
    hook.remove()
    change = seen["scale"].grad.reshape(-1, layer["num_neurons"])  # h dL/dh
    expected = change.abs().sum(0) if level == "sample" else change.sum(0).abs()
    np.testing.assert_allclose(found[0]["up"][0], expected / 8, rtol=1e-4, atol=1e-7)


def test_batches_and_padding_do_not_matter(tiny, tmp_path):
    folder = tiny("llama")
    model = load(folder)
    together, _ = record(model, folder, [batches_of(5, 4, 3)], tmp_path / "a.h5", importance=SAMPLE)
    rows = batches_of(5, 4, 3)
    apart = [{name: values[row: row + 1] for name, values in rows.items()} for row in range(3)]
    found, _ = record(model, folder, apart, tmp_path / "b.h5", importance=SAMPLE)
    for index in together:
        for part in ("up", "gate"):
            np.testing.assert_allclose(found[index][part], together[index][part], rtol=1e-4,
                                       atol=1e-8)


def test_clusters_share_the_sequences_and_their_importance(moefy, tiny, text, tmp_path):
    folder = tiny("llama")
    options = ("--length", 16, "--max-tokens", 192, "--quiet", "--importance")
    moefy("record", folder, "--text", text("a.txt"), text("b.txt", "zebras quiz vexed wizards, "),
          *options, "--clusters", 4, "-o", "rec.h5")
    moefy("record", folder, "--text", tmp_path / "a.txt", tmp_path / "b.txt", *options, "-o",
          "one.h5")

    with h5py.File(tmp_path / "rec.h5") as file, h5py.File(tmp_path / "one.h5") as one:
        clusters, sequences = file["cluster_id"][:], file["sequence_id"][:]
        assert len(clusters) == len(sequences)
        by_sequence = [set(clusters[sequences == s]) for s in set(sequences)]
        assert all(len(found) == 1 for found in by_sequence)
        assert sorted(np.bincount([c for found in by_sequence for c in found])) == [3, 3, 3, 3]
        assert file["importance/00001/up"].shape == (4, 64) or file["importance/00001/up"].shape[0] == 4
        share = file["importance"].attrs["tokens"] / one["importance"].attrs["tokens"].sum()
        np.testing.assert_allclose(share @ file["importance/00001/up"][:],
                                   one["importance/00001/up"][0], rtol=1e-4, atol=1e-9)
    moefy("split", folder, "-o", "map.h5", "--experts", 4, "--method", "gradient", "--recordings",
          "rec.h5")
    result = moefy("split", folder, "-o", "m.h5", "--experts", 8, "--method", "gradient",
                   "--recordings", "rec.h5", code=2)
    assert "--clusters 8" in result.stderr


def test_too_many_clusters_and_models_without_a_loss_are_refused(moefy, tiny, text):
    options = ("--length", 16, "--max-tokens", 64, "--quiet", "-o", "rec.h5")
    result = moefy("record", tiny("llama"), "--text", text("a.txt"), *options, "--clusters", 40,
                   code=2)
    assert "--clusters 40" in result.stderr
    for family in ("t5", "bert", "llama-base"):
        result = moefy("record", tiny(family), "--text", text("a.txt"), *options, "--importance", code=2)
        assert "--importance needs a causal language model" in result.stderr
    assert not list(moefy.folder.glob("rec*"))
