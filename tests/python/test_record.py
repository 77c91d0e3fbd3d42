"""`moefy record` and `moefy.record`: what they see, what they keep, and what they refuse."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from tests.python.conftest import PROGRAM

OPTIONS = ("--length", "16", "--max-tokens", "96", "--quiet")

# Where the FFN begins in the live model: the module whose input is recorded, by stack.
DECODER = "model.layers.{}.mlp"
FFN_OF_FAMILY = {
    "llama": [DECODER], "llama-bias": [DECODER], "llama-base": ["layers.{}.mlp"],
    "mistral": [DECODER], "qwen2": [DECODER], "qwen3": [DECODER], "gemma": [DECODER],
    "gemma2": [DECODER], "gemma3": [DECODER], "granite": [DECODER], "phi3": [DECODER],
    "gpt2": ["transformer.h.{}.mlp"], "gpt2-base": ["h.{}.mlp"],
    "opt": ["model.decoder.layers.{}.fc1"], "opt-base": ["decoder.layers.{}.fc1"],
    "gpt_neox": ["gpt_neox.layers.{}.mlp"],
    "bert": ["bert.encoder.layer.{}.intermediate"], "bert-base": ["encoder.layer.{}.intermediate"],
    "t5": ["encoder.block.{}.layer.1.DenseReluDense", "decoder.block.{}.layer.2.DenseReluDense"],
    "t5-gated": ["encoder.block.{}.layer.1.DenseReluDense",
                 "decoder.block.{}.layer.2.DenseReluDense"],
}


def layers_of(path):
    with h5py.File(path) as file:
        return {int(name): group["x"][:] for name, group in file["layers"].items()}


def inputs_of(model, places, ids):
    """The inputs of the FFN modules [tokens, hidden_size] of a live model, layer by layer."""
    found, hooks = {}, []

    def see(place):
        def hook(module, arguments):
            found[place] = arguments[0].reshape(-1, arguments[0].shape[-1]).numpy()

        return hook

    modules = dict(model.named_modules())
    names = [place.format(index) for place in places for index in range(9)
             if place.format(index) in modules]
    for name in names:
        hooks.append(modules[name].register_forward_pre_hook(see(name)))
    more = {}
    if model.config.is_encoder_decoder:
        more["decoder_input_ids"] = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1)
    with torch.no_grad():
        model(input_ids=ids, **more)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


@pytest.mark.parametrize("family", FFN_OF_FAMILY)
def test_every_family_gives_the_inputs_of_its_ffns(tiny, family, tmp_path):
    """Through the Python function, on the stock class that the checkpoint names."""
    import moefy
    from moefy.models import load_as_saved

    model = load_as_saved(tiny(family))
    ids = torch.arange(24).reshape(2, 12) % 29 + 3
    moefy.record(model, [ids], tmp_path / "rec.h5", dtype="float32", quiet=True)
    expected = inputs_of(model, FFN_OF_FAMILY[family], ids)
    found = layers_of(tmp_path / "rec.h5")
    assert list(found) == list(range(len(expected)))
    for index, rows in enumerate(expected):
        np.testing.assert_allclose(found[index], rows, rtol=1e-5, atol=1e-5)


def scales_of(path):
    with h5py.File(path) as file:
        return file["ffn_l1"][:], file["residual_l1"][:]


@pytest.mark.parametrize("family, part, above, below", [
    # name of the FFN, and of the norm whose input is the residual stream
    ("llama", "model.layers.{}", "post_attention_layernorm", "mlp.down_proj"),
    ("gemma2", "model.layers.{}", "pre_feedforward_layernorm", "mlp.down_proj"),
    ("granite", "model.layers.{}", "post_attention_layernorm", "mlp.down_proj"),
    ("phi3", "model.layers.{}", "post_attention_layernorm", "mlp.down_proj"),
    ("gpt2", "transformer.h.{}", "ln_2", "mlp.c_proj"),
    ("opt", "model.decoder.layers.{}", "final_layer_norm", "fc2"),
    ("bert", "bert.encoder.layer.{}", "intermediate", "output.dense"),
    ("t5", "encoder.block.{}.layer.1", "layer_norm", "DenseReluDense.wo"),
    ("gpt_neox", "gpt_neox.layers.{}", None, "mlp.dense_4h_to_h"),
])
def test_outputs_are_weighed_against_the_residual_stream(tiny, tmp_path, family, part, above, below):
    """Means of absolute sums over the real tokens of two batches, against hooks at the places by name."""
    import moefy
    from moefy.models import load_as_saved

    model = load_as_saved(tiny(family))
    batches = [{"input_ids": torch.arange(12).reshape(2, 6) % 29 + 3,
                "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2])},
               {"input_ids": torch.arange(5, 11)[None]}]
    layers = 2
    moefy.record(model, batches, tmp_path / "rec.h5", quiet=True)

    found, expected, hooks = scales_of(tmp_path / "rec.h5"), np.zeros((2, layers)), []
    mask = [None]

    def add(row, layer, values):
        kept = values.detach().reshape(mask[0].numel(), -1)[mask[0].reshape(-1)]
        expected[row, layer] += kept.double().abs().sum().item()

    outputs = {}
    for layer in range(layers):
        block = model.get_submodule(part.format(layer))

        def down(module, arguments, output, layer=layer):
            outputs[layer] = output
            add(0, layer, output)

        hooks.append(block.get_submodule(below).register_forward_hook(down))
        if above:
            hooks.append(block.get_submodule(above).register_forward_pre_hook(
                lambda module, arguments, layer=layer: add(1, layer, arguments[0])))
        else:
            hooks.append(block.register_forward_hook(lambda module, arguments, output, layer=layer: add(
                1, layer, (output[0] if isinstance(output, tuple) else output) - outputs[layer])))
    for batch in batches:
        mask[0] = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
        more = {}
        if model.config.is_encoder_decoder:
            more["decoder_input_ids"] = torch.cat([torch.zeros_like(batch["input_ids"][:, :1]),
                                                   batch["input_ids"][:, :-1]], 1)
        with torch.no_grad():
            model(**batch, **more)
    for hook in hooks:
        hook.remove()
    for row in range(2):
        np.testing.assert_allclose(found[row][:layers], expected[row] / 16, rtol=1e-5)
        assert np.all(found[row] > 0)


def test_scales_agree_with_what_calibrate_measures(tiny, tmp_path):
    """The dense ratio of residual stream and output, measured with the FFN taken out of its layer."""
    import moefy
    from moefy.ffn_switch import FfnSwitch, ffn_module_name
    from moefy.models import LayerRunner, ffn_layers, load_model
    from moefy.score_scale import run_layer

    folder = tiny("llama")
    model = load_model(str(folder))
    ids = torch.arange(3, 19)
    moefy.record(model, [ids[None]], tmp_path / "rec.h5", quiet=True)
    output, residual = scales_of(tmp_path / "rec.h5")
    names = [ffn_module_name(model, layer) for layer in ffn_layers(str(folder))]
    runner = LayerRunner(model, [name.rsplit(".", 1)[0] for name in names])
    streams = [runner.begin(ids[None])]
    for index, name in enumerate(names):
        switch = FfnSwitch(model.get_submodule(name))
        streams, gap = run_layer(runner, index, switch, streams, switch.compute)
        switch.restore()
        assert gap.ratio() == pytest.approx(residual[index] / output[index], rel=1e-4)


def test_the_file_says_what_it_is(moefy, tiny, text, tmp_path):
    import _moefy

    model = tiny("llama")
    moefy("record", model, "-o", "rec.h5", "--text", text("a.txt"), text("b.txt", "more words "),
          *OPTIONS)
    moefy("split", model, "-o", "map.h5", "--experts", "4")
    with h5py.File(tmp_path / "rec.h5") as file, h5py.File(tmp_path / "map.h5") as stored:
        assert file.attrs["format"] == "moefy-recordings" and file.attrs["schema_version"] == 1
        for name in ("source_fingerprint", "model_type", "architecture", "num_layers"):
            value = stored.attrs[name]
            assert file.attrs[name] == (value.decode() if isinstance(value, bytes) else value)
        for name, group in file["layers"].items():
            fingerprint = stored["layers"][name].attrs["fingerprint"]
            assert group.attrs["fingerprint"] in (fingerprint, fingerprint.decode()
                                                  if isinstance(fingerprint, bytes) else None)
            assert group["x"].shape == (96, 16) and group["x"].dtype == np.float16
            assert group["x"].chunks is None and group["x"].attrs["dtype"] == "float16"
        assert file["sequence_id"][:].tolist() == np.repeat(range(6), 16).tolist()
        assert json.loads(file["config"].asstr()[()])["tokens"] == file.attrs["num_tokens"] == 96
    assert _moefy.identity(str(model))["architecture"] == "llama"
    assert not (tmp_path / "rec.h5.journal").exists()


def test_dtypes_round_the_same_values(moefy, tiny, text, tmp_path):
    model = tiny("llama")
    for dtype in ("float32", "float16", "bfloat16"):
        moefy("record", model, "-o", f"{dtype}.h5", "--dtype", dtype, "--text", text("a.txt"),
              *OPTIONS)
    exact, half, brain = (layers_of(tmp_path / f"{dtype}.h5")[1]
                          for dtype in ("float32", "float16", "bfloat16"))
    assert np.array_equal(half, exact.astype(np.float16))
    assert brain.dtype == np.uint16
    assert np.array_equal(torch.from_numpy(brain.view(np.int16)).view(torch.bfloat16).float(),
                          torch.from_numpy(exact).bfloat16().float())


def test_layers_can_be_chosen(moefy, tiny, text, tmp_path):
    model = tiny("t5")
    moefy("record", model, "-o", "rec.h5", "--layers", "encoder.1,decoder.0-1", "--text",
          text("a.txt"), *OPTIONS)
    assert list(layers_of(tmp_path / "rec.h5")) == [1, 2, 3]
    assert "no stack" in moefy("record", model, "-o", "rec2.h5", "--layers", "neck.1", "--text",
                               text("a.txt"), *OPTIONS, code=2).stderr


def test_padding_leaves_no_trace(tiny, tmp_path):
    """Real tokens only, and more padding changes no byte."""
    import moefy
    from moefy.models import load_as_saved

    model = load_as_saved(tiny("llama"))
    ids = torch.arange(3, 24).reshape(3, 7)
    mask = torch.tensor([[1] * 5 + [0] * 2, [1] * 3 + [0] * 4, [1] * 1 + [0] * 6])
    wider = torch.nn.functional.pad
    for name, more in (("a.h5", 0), ("b.h5", 5)):
        batch = {"input_ids": wider(ids, (0, more)), "attention_mask": wider(mask, (0, more))}
        moefy.record(model, [batch], tmp_path / name, quiet=True)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["sequence_id"][:].tolist() == [0] * 5 + [1] * 3 + [2]
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    # The same tokens without any padding.
    for count, row in ((5, 0), (3, 1), (1, 2)):
        moefy.record(model, [ids[row: row + 1, :count]], tmp_path / f"{count}.h5", quiet=True)
    whole = layers_of(tmp_path / "a.h5")[1].astype(np.float32)
    parts = [layers_of(tmp_path / f"{count}.h5")[1].astype(np.float32) for count in (5, 3, 1)]
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=2e-3, atol=2e-3)


def test_max_tokens_takes_whole_sequences():
    from moefy.errors import InputError
    from moefy.recording import take_batches

    ids = torch.arange(20).reshape(4, 5)
    assert [b.ids.tolist() for b in take_batches([ids[:2], ids[2:]], 16)] == [
        ids[:2].tolist(), ids[2:3].tolist()]
    assert sum(len(b.ids) for b in take_batches(iter([ids, ids]), None)) == 8
    with pytest.raises(InputError, match="below the first sequence"):
        take_batches([ids], 4)
    with pytest.raises(InputError, match="no tokens"):
        take_batches([], 4)


def test_an_interrupted_recording_goes_on(tiny, text, tmp_path):
    """Stopped after some batches: the rest is recorded, the finished ones are not run again, and
    the bytes are those of a run in one go."""
    import moefy
    from moefy.models import load_as_saved

    class Stop(Exception):
        pass

    model = load_as_saved(tiny("llama"))
    batches = [torch.full((1, 6), 3) + torch.arange(6) + number for number in range(5)]
    moefy.record(model, batches, tmp_path / "whole.h5", quiet=True)
    runs = []

    def limit(count):
        def hook(module, arguments):
            if len(runs) == count:
                raise Stop
            runs.append(1)

        return hook

    with pytest.raises(Stop), model.model.layers[0].register_forward_pre_hook(limit(3)):
        moefy.record(model, batches, tmp_path / "rec.h5", quiet=True)
    assert not (tmp_path / "rec.h5").exists()
    assert (tmp_path / "rec.h5.journal").is_dir()
    runs.clear()
    with model.model.layers[0].register_forward_pre_hook(limit(99)):
        moefy.record(model, batches, tmp_path / "rec.h5", quiet=True)
    assert len(runs) == 2
    assert (tmp_path / "rec.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert not (tmp_path / "rec.h5.journal").exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_program_resumes_to_the_same_bytes(moefy, tiny, text, tmp_path, how):
    model = tiny("llama")
    words = text("a.txt", "some words to record, many times. " * 100)
    options = ["record", model, "--text", words, "--length", "16", "--max-tokens", "2000",
               "--batch-size", "1"]
    moefy(*options, "-o", "whole.h5", "--quiet")
    scales = tmp_path / "rec.h5.journal/scales"
    process = subprocess.Popen([str(PROGRAM), *map(str, options), "-o", "rec.h5"], cwd=tmp_path,
                               env={**os.environ, "MOEFY_PYTHON": sys.executable},
                               stderr=subprocess.PIPE, text=True)
    while not (scales.exists() and any(scales.read_bytes())):  # no batch has passed
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    errors = process.communicate()[1]
    if process.returncode != 0:  # else it was too fast to be stopped
        assert process.returncode == (75 if how != signal.SIGKILL else -signal.SIGKILL), errors
        assert how == signal.SIGKILL or errors.rstrip().endswith("moefy: exit 75 (interrupted)")
        assert not (tmp_path / "rec.h5").exists()
        moefy(*options, "-o", "rec.h5")
    assert (tmp_path / "rec.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_a_run_that_finished_nothing_leaves_nothing(tiny, tmp_path):
    """And the journal of one that was killed before its first batch gives way to other options."""
    import moefy
    from moefy import recordings_file
    from moefy.errors import UsageError
    from moefy.models import load_as_saved

    model = load_as_saved(tiny("llama"))
    ids, output = torch.arange(3, 11)[None], tmp_path / "rec.h5"

    def fail(*_):
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError), model.model.layers[0].register_forward_pre_hook(fail):
        moefy.record(model, [ids], output, quiet=True)
    assert not list(tmp_path.glob("rec*"))

    def lay_out(config, batches_done=0):
        layers = [{"index": 0, "name": "a", "hidden_size": 4, "num_neurons": 8, "fingerprint": ""}]
        found = recordings_file.prepare(output, {}, layers, np.zeros(3, np.int32), "float16", 1, config,
                                        False)
        (recordings_file.journal_folder(output) / "done").write_bytes(bytes([batches_done]))
        return found

    lay_out({"tokens": 1})
    with recordings_file.RecordingsWriter(output) as writer:
        writer.lock()
        with pytest.raises(UsageError, match="another run"):  # somebody is about to finish one
            lay_out({"tokens": 2})
    assert lay_out({"tokens": 2}, batches_done=1) == 0
    with pytest.raises(UsageError, match="another run"):
        lay_out({"tokens": 3})
    assert lay_out({"tokens": 2}) == 1


def test_recordings_are_labelled_with_the_model_that_ran(tiny, tmp_path):
    import moefy
    from moefy.errors import InputError
    from moefy.models import load_as_saved

    folder = tiny("phi3")
    ids = torch.arange(3, 11)[None]
    for number, dtype in enumerate((torch.bfloat16, torch.float16)):
        loaded = load_as_saved(folder, dtype=dtype)
        moefy.record(loaded, [ids], tmp_path / f"{number}.h5", quiet=True)
        moefy.record(loaded.float(), [ids], tmp_path / f"{number}wide.h5", quiet=True)
    model = load_as_saved(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] += 0.01
    with pytest.raises(InputError, match="model.layers.1.mlp.down_proj.weight.* is not that of"):
        moefy.record(model, [ids], tmp_path / "rec.h5", quiet=True)
    moefy.record(model, [ids], tmp_path / "rec.h5", layers="0", quiet=True)  # that one is the same


@pytest.mark.parametrize("importance, error", [
    (True, TypeError), ("feature-change", TypeError), ((1, 2, 3), TypeError),
    (("feature-change", "sample"), ValueError), (("feature-change", "each", "l1"), ValueError)])
def test_importance_must_be_three_names(tiny, tmp_path, importance, error):
    import moefy
    from moefy.models import load_as_saved

    model = load_as_saved(tiny("llama"))
    with pytest.raises(error, match="importance"):
        moefy.record(model, [torch.arange(3, 11)[None]], tmp_path / "rec.h5", importance=importance)
    assert not list(tmp_path.glob("rec*"))


def test_a_second_run_is_done_and_another_is_refused(moefy, tiny, text, tmp_path):
    model = tiny("llama")
    command = ("record", model, "-o", "rec.h5", "--text", text("a.txt"), "--length", "16",
               "--max-tokens", "96")
    moefy(*command)
    assert "already done" in moefy(*command).stderr
    refused = moefy(*command[:-1], "64", code=2)
    assert "tokens (96, now 64)" in refused.stderr and "--force" in refused.stderr
    moefy(*command[:-1], "64", "--force")
    assert len(layers_of(tmp_path / "rec.h5")[0]) == 64


def test_torchrun_shares_the_work_and_gives_the_same_bytes(moefy, tiny, text, tmp_path):
    model = tiny("llama")
    options = ["record", str(model), "--text", str(text("a.txt")), "--length", "16", "--max-tokens",
               "112", "--batch-size", "2", "--threads", "1"]
    moefy(*options, "-o", "alone.h5")
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3",
         "--no-python", str(PROGRAM), *options, "-o", "shared.h5", "--json"], cwd=tmp_path,
        env={**os.environ, "MOEFY_PYTHON": sys.executable}, capture_output=True, text=True,
        timeout=300)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["tokens"] == 112
    assert (tmp_path / "alone.h5").read_bytes() == (tmp_path / "shared.h5").read_bytes()


def test_values_beyond_float16_and_nan_are_refused(tiny, tmp_path):
    import moefy
    from moefy.errors import InputError
    from moefy.models import load_as_saved

    model = load_as_saved(tiny("llama"))
    ids = torch.arange(3, 11)[None]
    norm = model.model.layers[1].post_attention_layernorm.weight
    with torch.no_grad():
        norm.mul_(1e6)
    with pytest.raises(InputError, match="layer 1, token 0: .* beyond float16"):
        moefy.record(model, [ids], tmp_path / "rec.h5", quiet=True)
    moefy.record(model, [ids], tmp_path / "wide.h5", dtype="bfloat16", quiet=True)
    with torch.no_grad():
        norm.fill_(float("nan"))
    with pytest.raises(InputError, match="layer 1, token 0: .* NaN"):
        moefy.record(model, [ids], tmp_path / "nan.h5", dtype="float32", quiet=True)
    assert not (tmp_path / "rec.h5").exists() and not (tmp_path / "nan.h5").exists()


@pytest.mark.parametrize(("more", "code", "message"), [
    (["--length", "1"], 2, "--length 1 is below 2"),
    (["--length", "65"], 2, "at most 64 tokens"),
    (["--max-tokens", "15", "--length", "16"], 2, "below one sequence"),
    (["--dtype", "int8"], 2, "int8"),
    (["--batch-size", "0"], 2, "--batch-size 0"),
    (["--text", "none.txt"], 2, "no such file"),
    (["-o", "none/rec.h5"], 4, "no such folder"),
    (["-o", "."], 2, "is a folder"),
    (["--clusters", "21", "--max-tokens", "64", "--length", "16"], 2, "there are only 4 sequences"),
    (["--device", "gpu"], 2, "--device 'gpu': expected cpu"),
])
def test_wrong_options_are_refused(moefy, tiny, text, tmp_path, more, code, message):
    words = text("a.txt", "words of a text. " * 20)
    result = moefy("record", tiny("llama"), "-o", "rec.h5", "--text", words, *more, code=code)
    assert message in result.stderr
    assert result.stderr.rstrip().endswith(f"moefy: exit {code} ({'usage' if code == 2 else 'file system'})")
    assert not list(tmp_path.glob("rec*"))


def test_a_model_without_weights_or_unknown_is_named(moefy, tiny, text):
    model = tiny("llama")
    (model / "model.safetensors").unlink()
    result = moefy("record", model, "-o", "rec.h5", "--text", text("a.txt"), *OPTIONS, code=3)
    assert str(model) in result.stderr
    missing = moefy("record", "org/none", "-o", "rec.h5", "--text", text("a.txt"), *OPTIONS, code=2)
    assert "org/none" in missing.stderr
