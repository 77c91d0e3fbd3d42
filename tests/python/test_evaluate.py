"""evaluate: figures against transformers, the plot, and tasks of another program."""

import json
import xml.etree.ElementTree

import numpy as np
import pytest
import torch

# Stands in for lm-evaluation-harness, which would download its tasks: notes what it is called with.
HARNESS = """
import json, pathlib

def simple_evaluate(model, tasks, device, model_args):
    with open("calls.jsonl", "a") as calls:
        calls.write(json.dumps([model, tasks, device, model_args]) + "\\n")
    return {"results": {task: {"acc,none": 0.25, "alias": task} for task in tasks}}
"""


def convert(moefy, model):
    """out: 7 routed experts and one shared, 3 of the routed ones chosen."""
    moefy("split", model, "-o", "map.h5", "--experts", "7", "--shared", "1", "--method", "random")
    moefy("convert", model, "map.h5", "-o", "out", "--top-k", "3")


def test_evaluate_puts_models_side_by_side(moefy, tiny, text, tmp_path):
    model = tiny("llama")
    words = text("words.txt")
    convert(moefy, model)
    options = ("--text", words, text("b.txt", "some other words. "), "--length", "16",
               "--sequences", "3", "--quiet")
    table = moefy("evaluate", model, "out", "--top-k", "7", *options, "-o", "figures.json").stdout
    assert [line.split()[0] for line in table.splitlines()] == ["model", "dense", "out", "out"]
    dense, stored, all_on = json.loads((tmp_path / "figures.json").read_text())
    assert dense["times_dense"] == 1 and dense["agreement"] == 1
    assert set(dense["texts"]) == {"words", "b"}
    assert (stored["top_k"], all_on["top_k"]) == (3, 7)
    assert stored["active_parameters"] < all_on["active_parameters"] == all_on["parameters"]
    ratio = np.exp(np.mean([np.log(t["times_dense"]) for t in stored["texts"].values()]))
    assert stored["times_dense"] == pytest.approx(ratio)
    # Against transformers directly.
    from moefy.models import load_model, load_tokenizer
    from moefy.texts import read_text, to_sequences

    sequences = to_sequences(load_tokenizer(model), read_text(words), 16, "words")
    order = np.random.default_rng(0).permutation(len(sequences))
    ids = torch.as_tensor(sequences[np.sort(order[:3])])
    with torch.no_grad():
        loss = load_model(model)(input_ids=ids, labels=ids).loss
    assert dense["texts"]["words"]["perplexity"] == pytest.approx(float(loss.exp()), rel=1e-4)
    assert "exists" in moefy("evaluate", model, *options, "-o", "figures.json", code=2).stderr


def test_names_tell_texts_and_models_apart(tmp_path):
    from moefy.names import distinct_names, repeated

    for place in ("a/x.txt", "b/x.txt", "b/x.html", "c.txt", "v1.5/d.txt"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("")

    def names(*places, **more):
        return distinct_names([tmp_path / place for place in places], **more)

    assert names("a/x.txt", "c.txt") == ["x", "c"]
    assert names("b/x.txt", "b/x.html", "c.txt") == ["x.txt", "x.html", "c"]
    assert names("a/x.txt", "b/x.txt") == ["a/x.txt", "b/x.txt"]
    assert names("a/x.txt", "b/x.txt", "b/x.html") == ["a/x.txt", "b/x.txt", "x.html"]
    assert names("v1.5", "a") == ["v1.5", "a"]
    assert names("a", taken={"a"}) == [f"{tmp_path.name}/a"]
    assert repeated([tmp_path / "a", tmp_path / "b", tmp_path / "b/../a"]) == [tmp_path / "b/../a"]


def test_texts_and_models_of_one_name_keep_their_figures(moefy, tiny, text, tmp_path):
    """And a model that was not made from the dense one is warned of; numbers that do not exist are null."""
    from tests.python.conftest import write_tokenizer
    from tiny_models import write_tiny

    model = tiny("llama")
    convert(moefy, model)
    write_tiny("llama", tmp_path / "other", seed=1)
    write_tokenizer(tmp_path / "other")
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "out").rename(tmp_path / "one/out")
    moefy("convert", model, "map.h5", "-o", "two/out", "--top-k", "2")
    texts = [text("one/words.txt"), text("two/words.txt", "some other words. ")]
    options = ("--length", "16", "--sequences", "1", "-o", "figures.json")

    result = moefy("evaluate", "other", "one/out", "two/out", "--text", *texts, *options)

    rows = json.loads((tmp_path / "figures.json").read_text(), parse_constant=pytest.fail)
    assert [row["model"] for row in rows] == ["dense", "one/out", "two/out"]
    assert list(rows[1]["texts"]) == ["one/words.txt", "two/words.txt"]
    assert rows[1]["interval"] is None and rows[1]["texts"]["one/words.txt"]["interval"] is None
    assert result.stderr.count("was not made from other") == 2
    twice = moefy("evaluate", model, "one/out", "two/../one/out", "--text", texts[0], texts[0], code=2)
    assert twice.stderr.count("is given twice") == 2


def test_models_that_do_not_predict_the_next_token_are_refused(moefy, tiny, text):
    for family in ("bert", "t5"):
        result = moefy("evaluate", tiny(family), "--text", text("a.txt"), "--length", "16", code=2)
        assert "evaluate needs a causal language model" in result.stderr


def test_evaluate_refuses_what_moefy_did_not_make(moefy, tiny, text):
    model = tiny("llama")
    result = moefy("evaluate", model, model, "--text", text("a.txt"), "--length", "16", code=3)
    assert "manifest.json" in result.stderr


@pytest.fixture
def harness(tmp_path):
    """A folder for PYTHONPATH with a module lm_eval."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/lm_eval.py").write_text(HARNESS)
    return str(tmp_path / "modules")


def test_tasks_are_run_with_every_model_as_it_is_stored(moefy, tiny, text, tmp_path, harness):
    model = tiny("llama")
    convert(moefy, model)
    options = ("--text", text("a.txt"), "--length", "16", "--sequences", "1", "--quiet", "--top-k", "7",
               "--tasks", "one,two")
    found = moefy("evaluate", model, "out", *options, "--json", env={"PYTHONPATH": harness}).stdout
    dense, stored, all_on = map(json.loads, found.splitlines())
    assert dense["tasks"] == stored["tasks"] == {
        task: {"acc,none": 0.25, "alias": task} for task in ("one", "two")}
    assert "tasks" not in all_on
    calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert calls == [["hf", ["one", "two"], "cpu", f"pretrained={folder},dtype=float32"]
                     for folder in (model, "out")]
    table = moefy("evaluate", model, *options, env={"PYTHONPATH": harness}).stdout
    assert "dense  two  acc,none 0.2500" in table


@pytest.mark.parametrize("option, message", [("tasks", "pip install lm-eval"),
                                             ("plot", "pip install matplotlib")])
def test_a_missing_package_is_told_before_the_work(monkeypatch, option, message):
    import importlib.util
    import types

    from moefy.commands.evaluate import problems

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    args = types.SimpleNamespace(sequences=1, length=16, output=None, force=False, plot=None,
                                 tasks=None, text=[], outputs=[])
    assert problems(args) == []
    setattr(args, option, "p.png")
    problem, = problems(args)
    assert message in problem


def test_the_plot_shows_every_model(moefy, tiny, text, tmp_path):
    pytest.importorskip("matplotlib")
    model = tiny("llama")
    convert(moefy, model)
    options = ("--text", text("a.txt"), "--length", "16", "--sequences", "1", "--quiet", "--top-k", "7")
    moefy("evaluate", model, "out", *options, "--plot", "p.svg")
    moefy("evaluate", model, "out", *options, "--plot", "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    drawing = (tmp_path / "p.svg").read_text()
    xml.etree.ElementTree.fromstring(drawing)
    for words in ("dense", "out", "active parameters [millions]", "perplexity, times dense"):
        assert words in drawing
    again = moefy("evaluate", model, *options, "--plot", "p.svg", code=2)
    assert "--force" in again.stderr
    assert ".png" in moefy("evaluate", model, *options, "--plot", "p.txt", code=2).stderr
