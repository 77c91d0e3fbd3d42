"""`moefy recover`: the function it trains is the stock one, training helps, goes on where it stopped,
and what comes out is a stock model that says what it is."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.python.conftest import PROGRAM

HOSTS = {"qwen2-moe": 4, "qwen3-moe": 0, "mixtral": 0, "glm4-moe": 1, "dots1": 1, "solar-open": 1,
         "exaone-moe": 1}  # shared experts
OF_QWEN3 = {"qwen3-moe", "dots1", "exaone-moe"}


@pytest.fixture
def converted(moefy, tiny, text):
    """converted(host): (dense folder, converted folder, text)."""

    def make(host="glm4-moe", experts=8, shared=None, top_k=4, more=()):
        dense = tiny("qwen3" if host in OF_QWEN3 else "llama")
        shared = HOSTS[host] if shared is None else shared
        moefy("split", dense, "-o", "map.h5", "--experts", experts, "--shared", shared, "--force",
              "--method", "random")
        moefy("convert", dense, "map.h5", "-o", "moe", "--host", host, "--force", *more,
              *(() if host == "dense" else ("--top-k", top_k)))
        return dense, moefy.folder / "moe", text("a.txt")

    return make


def recover(moefy, dense, moe, words, *more, output="out", **options):
    return moefy("recover", moe, "--teacher", dense, "--text", words, "-o", output, "--length", 16,
                 "--batch", 2, "--sampled", 64, "--threads", 1, "--quiet", *more, **options)


def weights(folder):
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update(load_file(path))
    return found


@pytest.mark.parametrize("host", HOSTS)
def test_the_trained_function_is_that_of_the_stock_blocks(converted, host):
    from moefy.models import load_model
    from moefy.sparse_ffn import SparseFfn, moe_blocks

    _, moe, _ = converted(host)
    model = load_model(str(moe))
    ids = torch.arange(24)[None] % 29 + 3
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    blocks = [SparseFfn(block) for _, block in moe_blocks(model)]
    assert len(blocks) == model.config.num_hidden_layers
    for block in blocks:
        block.__enter__()
    found = model(input_ids=ids).logits
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    for block in blocks:
        # Routers learn although the choice is hard.
        assert block.gate.weight.grad.abs().sum() > 0
        block.__exit__()
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, expected)


@pytest.mark.parametrize("host", HOSTS)
def test_training_brings_the_model_nearer_to_its_teacher(moefy, converted, host, tmp_path):
    from moefy.models import load_model

    dense, moe, words = converted(host)
    recover(moefy, dense, moe, words, "--steps", 60, "--rate", "3e-3")

    before, after = weights(moe), weights(tmp_path / "out")
    assert {name: (value.dtype, value.shape) for name, value in before.items()} == \
        {name: (value.dtype, value.shape) for name, value in after.items()}
    for name, value in before.items():
        trained = ".mlp." in name or "block_sparse_moe" in name
        assert torch.equal(value, after[name]) != trained or "bias" in name or \
            "shared_expert_gate" in name, name
    ids = torch.arange(40)[None] % 29 + 3
    teacher = load_model(str(dense))(input_ids=ids).logits.detach().log_softmax(-1)

    def distance(folder):  # load_model also refuses missing, unexpected or new tensors
        with torch.no_grad():
            student = load_model(str(folder))(input_ids=ids).logits.log_softmax(-1)
        return float((teacher.exp() * (teacher - student)).sum(-1).mean())

    assert distance(tmp_path / "out") < distance(moe)


def test_experts_learn_where_all_of_them_run(moefy, converted, tmp_path):
    """There is no choice to learn then, so routers stay as they are."""
    dense, moe, words = converted(top_k=8)
    recover(moefy, dense, moe, words, "--steps", 3, "--rate", "3e-3")

    before, after = weights(moe), weights(tmp_path / "out")
    same = {name for name in before if torch.equal(before[name], after[name])}
    for name in before:
        assert (name in same) == (".mlp." not in name or ".gate." in name), name


def test_the_fused_layout_stays(moefy, converted, tmp_path):
    dense, moe, words = converted(more=("--layout", "fused"))
    recover(moefy, dense, moe, words, "--steps", 3, "--rate", "3e-3")

    before, after = weights(moe), weights(tmp_path / "out")
    assert {name: value.shape for name, value in before.items()} == \
        {name: value.shape for name, value in after.items()}
    name = next(name for name in before if name.endswith("experts.gate_up_proj"))
    assert not torch.equal(before[name], after[name])


def test_it_says_what_it_is(moefy, converted, tmp_path):
    dense, moe, words = converted()
    recover(moefy, dense, moe, words, "--steps", 3)
    manifest = json.loads((tmp_path / "out/moefy/manifest.json").read_text())
    assert manifest["recovered"]["steps"] == 3
    assert "moefy recover" in (tmp_path / "out/README.md").read_text()
    for command in (("verify", dense, "out"), ("restore", "out", "-o", "back")):
        result = moefy(*command, code=2)
        assert "moefy recover" in result.stderr
    assert not (tmp_path / "out.journal").exists() and not (tmp_path / "back").exists()
    again = recover(moefy, dense, "out", words, "--steps", 3, output="out2", code=2)
    assert "trained by moefy recover before" in again.stderr
    moefy("evaluate", dense, "out", "--text", words, "--length", 16, "--sequences", 2, "--quiet")


def test_a_checkpoint_goes_on_as_if_nothing_had_happened(converted, tmp_path):
    from moefy.models import load_model
    from moefy.ranks import Ranks
    from moefy.training import Training
    from moefy.training_journal import Journal

    class Options:
        device, precision, rate, router_rate = "cpu", "fp32", 2e-3, 1e-2

    dense, moe, _ = converted()

    def begin(state=None):
        training = Training(Options, load_model(str(moe)), load_model(str(dense)), Ranks())
        if state:
            training.restore(state)
        return training

    def run(training, steps):
        with training.routed():
            for step in steps:
                training.step((np.arange(32).reshape(2, 16) + step) % 29 + 3, 1.0)
        return training

    whole = run(begin(), range(6))
    journal = Journal(tmp_path / "out", {"a": 1}, force=False)
    journal.save(run(begin(), range(3)).state())
    parts = run(begin(Journal(tmp_path / "out", {"a": 1}, force=False).load()), range(3, 6))
    assert parts.step_number == 6 and parts.losses == whole.losses
    learned = whole.weights.named()
    for name, value in parts.weights.named().items():
        assert torch.equal(value, learned.pop(name)), name
    assert not learned


def test_small_steps_are_not_lost_in_bf16(converted):
    from moefy.models import load_model
    from moefy.ranks import Ranks
    from moefy.training import Training

    class Options:
        device, precision, rate, router_rate = "cpu", "bf16", 1e-6, 1e-6

    dense, moe, _ = converted()
    training = Training(Options, load_model(str(moe)), load_model(str(dense)), Ranks())
    before = {name: value.clone() for name, value in training.weights.named().items()}
    stored = dict(load_model(str(moe)).named_parameters())
    with training.routed():
        for _ in range(3):
            training.step(np.arange(32).reshape(2, 16) % 29 + 3, 1.0)
    for name, value in training.weights.named().items():
        assert torch.equal(before[name], stored[name])  # they begin from what the file holds
        assert value.dtype == torch.float32 and not torch.equal(value, before[name])
        assert (value - before[name]).abs().max() < 1e-5


def test_a_stopped_run_goes_on_to_the_same_end(moefy, converted, tmp_path):
    dense, moe, words = converted()
    recover(moefy, dense, moe, words, "--steps", 400, output="whole")
    command = [str(PROGRAM), "recover", str(moe), "--teacher", str(dense), "--text", str(words),
               "-o", "parts", "--length", "16", "--batch", "2", "--sampled", "64", "--threads", "1",
               "--steps", "400"]
    environment = {**os.environ, "MOEFY_PYTHON": sys.executable}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE,
                               text=True)
    for line in process.stderr:
        if "sequences of" in line:  # training begins
            break
    process.send_signal(signal.SIGTERM)
    process.stderr.read()
    assert process.wait(60) == 75 and not (tmp_path / "parts").exists()
    recover(moefy, dense, moe, words, "--steps", 400, output="parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_ranks_learn_from_the_mean_of_their_gradients(converted, tmp_path):
    dense, moe, words = converted()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "--no-python", str(PROGRAM), "recover", str(moe), "--teacher", str(dense), "--text",
               str(words), "-o", "out", "--length", "16", "--batch", "2", "--sampled", "64", "--threads",
               "1", "--steps", "3", "--json"]
    environment = {**os.environ, "MOEFY_PYTHON": sys.executable}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True,
                            timeout=240)
    assert result.returncode == 0, result.stderr
    record, = map(json.loads, result.stdout.splitlines())
    assert record["ranks"] == 2 and record["tokens_a_step"] == 64 and record["steps"] == 3
    before, after = weights(moe), weights(tmp_path / "out")
    name = "model.layers.0.mlp.gate.weight"
    assert not torch.equal(before[name], after[name])


def test_done_runs_and_other_options(moefy, converted, tmp_path):
    dense, moe, words = converted()
    recover(moefy, dense, moe, words, "--steps", 2)
    result = moefy("recover", moe, "--teacher", dense, "--text", words, "-o", "out", "--length", 16,
                   "--batch", 2, "--sampled", 64, "--threads", 1, "--steps", 2)
    assert "already done" in result.stderr
    result = recover(moefy, dense, moe, words, "--steps", 3, code=2)
    assert "--force" in result.stderr
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/to.txt").write_text("Dear")
    result = recover(moefy, dense, moe, words, "--steps", 3, "-o", "letters", "--force", code=2)
    assert "no config.json" in result.stderr and (tmp_path / "letters/to.txt").exists()
    recover(moefy, dense, moe, words, "--steps", 3, "--force")
    assert json.loads((tmp_path / "out/moefy/manifest.json").read_text())["recovered"]["steps"] == 3


def test_texts_take_turns():
    from moefy.training import Schedule

    texts = [np.arange(3)[:, None], 10 + np.arange(2)[:, None]]
    schedule = Schedule(texts, None, seed=0)
    drawn = schedule.batch(0, 12)[:, 0]
    assert sorted(drawn[0:6:2]) == [0, 1, 2] and sorted(drawn[6:12:2]) == [0, 1, 2]
    assert sorted(drawn[1:5:2]) == [10, 11] and (drawn[1::2] >= 10).all()
    # Any cut of the work into batches draws the same.
    assert (schedule.batch(5, 4)[:, 0] == drawn[5:9]).all()


def test_text_of_the_model_takes_every_other_turn():
    from moefy.training import Schedule

    texts = [np.arange(3)[:, None], 10 + np.arange(2)[:, None]]
    drawn = Schedule(texts, 20 + np.arange(4)[:, None], seed=0).batch(0, 16)[:, 0]
    assert sorted(drawn[1:9:2]) == [20, 21, 22, 23] and sorted(drawn[9::2]) == [20, 21, 22, 23]
    assert (drawn[0::2] == Schedule(texts, None, seed=0).batch(0, 8)[:, 0]).all()


def test_the_rate_warms_up_and_decays():
    from moefy.training import rate_of

    assert rate_of(0, 0) == pytest.approx(1 / 8)
    assert rate_of(0.5, 100) == pytest.approx(0.525)
    assert rate_of(1, 100) == pytest.approx(0.05)


@pytest.mark.parametrize("more, message", [
    (("--steps", -1), "--steps"), (("--minutes", 0), "--minutes"), (("--rate", "0"), "--rate"),
    (("--length", 1), "--length"), (("--batch", 0), "--batch"), (("--sampled", -1), "--sampled"),
    (("-o", "moe"), "choose another place"), (("--text", "nothing.txt"), "no such file")])
def test_wrong_options_are_refused(moefy, converted, more, message):
    dense, moe, words = converted()
    arguments = {"--text": words, "-o": "out", "--length": 16, "--steps": 2}
    arguments.update(zip(more[::2], more[1::2]))
    result = moefy("recover", moe, "--teacher", dense, "--quiet",
                   *(word for pair in arguments.items() for word in pair), code=2)
    assert message in result.stderr


def test_a_journal_without_a_checkpoint_gives_way_to_other_options(tmp_path):
    from moefy.errors import UsageError
    from moefy.training_journal import Journal

    first = Journal(tmp_path / "out", {"rate": 1}, force=False)
    first.array("sampled", lambda: np.arange(3))
    again = Journal(tmp_path / "out", {"rate": 1}, force=False)
    assert again.array("sampled", lambda: np.zeros(0)).tolist() == [0, 1, 2]
    other = Journal(tmp_path / "out", {"rate": 2}, force=False)
    assert other.array("sampled", lambda: np.arange(2)).tolist() == [0, 1]
    other.save({"step": 1})
    with pytest.raises(UsageError, match="other rate"):
        Journal(tmp_path / "out", {"rate": 1}, force=False)
    Journal(tmp_path / "more", {}, force=False).remove_if_empty()
    assert not (tmp_path / "more.journal").exists()
    other.remove_if_empty()
    assert (tmp_path / "out.journal").exists()


def test_another_teacher_is_refused(moefy, converted, tmp_path):
    """Even one of equal sizes: layers are compared by their weights, config.json by its bytes."""
    from tests.python.conftest import write_tokenizer
    from tiny_models import write_tiny

    _, moe, words = converted()
    write_tiny("llama", tmp_path / "other", seed=1)
    write_tokenizer(tmp_path / "other")

    refused = recover(moefy, "other", moe, words, "--steps", 1, code=3)

    assert refused.stderr.count("moefy:") == 2 and "was made from another model" in refused.stderr
    assert not (tmp_path / "out.journal").exists()
    recover(moefy, "other", moe, words, "--steps", 1, "--no-verify")


def test_part_of_the_layers_has_a_teacher_too(moefy, converted):
    from moefy.manifest import manifest_of, was_made_from

    dense, moe, _ = converted()
    assert was_made_from(manifest_of(moe), dense)
    moefy("split", dense, "-o", "map.h5", "--experts", 8, "--layers", "1", "--force", "--method", "random")
    moefy("convert", dense, "map.h5", "-o", "part", "--host", "qwen2-moe", "--force")
    manifest = manifest_of(moefy.folder / "part")
    assert manifest["layers"] == [1] and was_made_from(manifest, dense)
    assert not was_made_from({**manifest, "layers": [0]}, dense)


@pytest.mark.parametrize("host", ["granitemoe", "dense"])
def test_hosts_that_cannot_be_trained_are_named_at_once(moefy, converted, tmp_path, host):
    dense, moe, words = converted(host, shared=0)

    result = recover(moefy, dense, moe, words, "--steps", 1, code=2)

    assert f"models of host {host} cannot be trained here" in result.stderr
    assert not (tmp_path / "out.journal").exists()


def test_models_that_cannot_be_trained_are_named(moefy, converted, tiny, text):
    dense, moe, words = converted()
    result = moefy("recover", dense, "--teacher", dense, "--text", words, "-o", "out", "--length", 16,
                   code=3)
    assert "not made by moefy convert" in result.stderr
    other = tiny("gpt2")
    result = recover(moefy, other, moe, words, "--steps", 2, code=3)
    assert "--teacher" in result.stderr
