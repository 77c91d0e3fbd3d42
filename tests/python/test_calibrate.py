"""calibrate, convert --use-refit, verify and restore on tiny models, through the program."""

import json
import pathlib
import re
import sys
import types

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

OPTIONS = ("--granularity", "8", "--active", "0.5", "--tokens", "96", "--sampled", "64", "--length",
           "16", "--quiet")


def calibrate(moefy, model, output, *more, **options):
    return moefy("calibrate", model, "-o", output, *OPTIONS, *more, **options)


# The families whose FFN is a module of its own and that an MoE class can carry; Granite's classes, which
# also carry Gemma, keep all experts of a layer in one tensor.
@pytest.mark.parametrize("family, more, host", [
    *((family, (), "auto") for family in ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "granite")),
    ("llama", ("--shared", 0), "granitemoe"), ("llama", ("--shared", 2), "granitemoeshared")])
def test_a_calibrated_model_loads_and_comes_back(moefy, tiny, text, tmp_path, family, more, host):
    from moefy.models import load_model

    model = tiny(family)
    calibrate(moefy, model, "map.h5", "--text", text("a.txt"), *more)
    moefy("convert", model, "map.h5", "-o", "out", "--use-refit", "--host", host)
    verified = moefy("verify", model, "out").stdout
    assert "refitted" in verified
    converted = load_model(tmp_path / "out")  # refuses anything missing or unexpected
    ids = torch.arange(3, 19)[None]
    with torch.no_grad():
        assert torch.isfinite(converted(input_ids=ids).logits).all()
    moefy("restore", "out", "-o", "back")
    dense, back = load_file(model / "model.safetensors"), load_file(tmp_path / "back/model.safetensors")
    assert dense.keys() == back.keys()
    assert all(np.array_equal(dense[name], back[name]) for name in dense)


def test_the_stored_model_does_what_the_calibration_saw(moefy, tiny, text, tmp_path):
    """The converted model in a stock class routes and computes as the calibrator did: the FFN of
    the first layer, on the same inputs, gives the same outputs up to the weights' distance from
    one."""
    import _moefy
    from moefy.models import load_model

    model = tiny("llama")
    calibrate(moefy, model, "map.h5", "--text", text("a.txt"))
    moefy("convert", model, "map.h5", "-o", "out", "--use-refit")
    with h5py.File(tmp_path / "map.h5") as stored:
        assert stored.attrs["refit_file"] == "map.refit.safetensors"
        layer = stored["layers/00000"]
        labels, router = layer["labels"][:], layer["router/weight"][:]
        metrics = dict(layer["stats/metrics"].attrs)
        top_k = int(stored.attrs["top_k"])
    assert 0 < metrics["output_error"] <= metrics["output_error_without_refit"]
    down = load_file(tmp_path / "map.refit.safetensors")["model.layers.0.mlp.down_proj.weight"]
    dense = load_file(model / "model.safetensors")
    gate, up = (dense[f"model.layers.0.mlp.{name}_proj.weight"] for name in ("gate", "up"))
    inputs = np.random.default_rng(0).standard_normal((20, gate.shape[1])).astype(np.float32)
    z = inputs @ gate.T
    hidden = z / (1 + np.exp(-z)) * (inputs @ up.T)
    scores = inputs @ router.T
    chosen = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    on = np.zeros(scores.shape, bool)
    np.put_along_axis(on, chosen, True, 1)
    mask = np.where(labels < 0, True, on[:, np.maximum(labels, 0)])
    expected = (hidden * mask) @ down.T
    with torch.no_grad():
        found = load_model(tmp_path / "out").model.layers[0].mlp(torch.tensor(inputs)[None])[0]
    assert np.abs(found.numpy() - expected).max() <= 0.01 * np.abs(expected).max()
    assert _moefy.version().startswith("moefy")


def test_what_speaks_against_a_run_is_said_before_the_model_runs(moefy, tiny, text, tmp_path):
    """A model whose weights transformers refuses shows how far a run got."""
    model = tiny("llama")
    calibrate(moefy, model, "map.h5", "--text", text("a.txt"))
    weights = load_file(model / "model.safetensors")
    from safetensors.numpy import save_file

    save_file({name: value for name, value in weights.items() if "norm" not in name},
              model / "model.safetensors", metadata={"format": "pt"})
    assert "missing keys" in calibrate(moefy, model, "new.h5", "--text", text("a.txt"), code=3).stderr
    for more, message in ((("--granularity", "4096"), "24 neurons"), (("--seed", "1"), "was made otherwise")):
        assert message in calibrate(moefy, model, "map.h5", "--text", text("a.txt"), *more, code=2).stderr
    assert not list(tmp_path.glob("new*"))


def test_a_second_run_is_done_and_other_text_is_refused(moefy, tiny, text):
    model = tiny("llama")
    calibrate(moefy, model, "map.h5", "--text", text("a.txt"))
    again = moefy("calibrate", model, "-o", "map.h5", *OPTIONS[:-1], "--text", text("a.txt"))
    assert "already done" in again.stderr
    other = calibrate(moefy, model, "map.h5", "--text", text("b.txt", "other words "), code=2)
    assert "text" in other.stderr and "--force" in other.stderr
    calibrate(moefy, model, "map.h5", "--text", text("b.txt", "other words "), "--force")


def test_what_the_model_wrote_is_kept_for_the_next_run(moefy, tiny, text, tmp_path, monkeypatch):
    """A run that was stopped after sampling samples no more; one with other options begins anew."""
    import _moefy
    from moefy import calibration_text

    model = tiny("llama")

    class Options:
        seed, length, tokens, sampled, device = 0, 16, 96, 64, "cpu"

    Options.model, Options.text = str(model), [text("a.txt")]
    found = calibration_text.CalibrationText(Options)

    def calibrator(refit=0.2):
        return _moefy.Calibrator(str(model), str(tmp_path / "map.h5"), 8, 0.5, -1, 1.0, refit, 4, 0,
                                 json.dumps(found.identity), "", 1, False, lambda warning: None)

    def sequences(of):
        return found.sequences(lambda *work: types.SimpleNamespace(
            advance=lambda: None, finish=lambda: None), of.sampled, of.keep_sampled)

    first = sequences(calibrator())
    assert sum(map(len, first)) == found.identity["tokens"] == 96 + 64
    monkeypatch.setattr(calibration_text, "sample_text", None)
    again = sequences(calibrator())
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    assert calibrator(refit=0.5).sampled == []
    assert not (tmp_path / "map.h5.journal").exists()


@pytest.mark.parametrize("family, again", [("llama", 1), ("granite", 3)])
def test_a_layer_that_adds_its_ffn_is_run_again_once(tiny, family, again):
    """Granite multiplies what it adds: there every sequence is run through the layer again."""
    from moefy.ffn_switch import FfnSwitch, behind_layer, ffn_module_names
    from moefy.models import LayerRunner, ffn_layers, load_model

    folder = str(tiny(family))
    model = load_model(folder)
    names = ffn_module_names(folder, ffn_layers(folder))
    runner = LayerRunner(model, [name.rsplit(".", 1)[0] for name in names])
    streams = [runner.begin(torch.arange(first, first + 16)[None]) for first in (3, 4, 5)]
    switch = FfnSwitch(model.get_submodule(names[0]))
    residuals = [runner.run(0, stream) for stream in streams]
    outputs = [torch.randn(residual.shape, generator=torch.Generator().manual_seed(place))
               for place, residual in enumerate(residuals)]
    expected = []
    for stream, switch.outputs in zip(streams, outputs):
        expected.append(runner.run(0, stream))
    calls = []
    run, runner.run = runner.run, lambda *of: calls.append(of) or run(*of)
    found = behind_layer(runner, 0, switch, streams, residuals, outputs)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(calls) == again and switch.outputs is None


@pytest.mark.parametrize("family, edits", [
    ("llama", {}), ("mistral", {"sliding_window": 4}), ("gemma2", {"sliding_window": 4}), ("gemma3", {}),
    ("gpt2", {}), ("gpt_neox", {}), ("phi3", {})])
def test_a_batch_gives_what_its_sequences_give(tiny, family, edits):
    from moefy.ffn_switch import ffn_module_names
    from moefy.models import LayerRunner, ffn_layers, load_model

    folder = str(tiny(family))
    names = [name.rsplit(".", 1)[0] for name in ffn_module_names(folder, ffn_layers(folder))]
    runner = LayerRunner(load_model(folder, **edits), names)
    ids = torch.arange(3 * 12).reshape(3, 12) % 29 + 3
    batch, single = runner.begin(ids), [runner.begin(ids[place:place + 1]) for place in range(3)]
    for index in range(len(names)):
        batch, single = runner.run(index, batch), [runner.run(index, one) for one in single]
        torch.testing.assert_close(batch, torch.cat(single))


def test_the_same_run_gives_the_same_bytes(moefy, tiny, text, tmp_path):
    model = tiny("llama")
    for name in ("one", "two"):
        calibrate(moefy, model, f"{name}.h5", "--text", text("a.txt"), "--threads", "1")
    one, two = (load_file(tmp_path / f"{name}.refit.safetensors") for name in ("one", "two"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_who_fits_is_said_first(moefy, tiny, text):
    model = tiny("llama")
    found = moefy("calibrate", model, "-o", "map.h5", *OPTIONS[:-1], "--text", text("a.txt"))
    assert found.stderr.startswith("model: cpu; experts, routers and refits: cpu (")


@pytest.mark.parametrize("device, built, expected", [
    ("cpu", True, ("cpu", 0, "")), ("cuda:1", True, ("cuda", 1, "")), ("cuda", True, ("cuda", 3, "")),
    ("cuda:1", False, ("cpu", 0, "; this build of moefy has no CUDA"))])
def test_the_gpu_of_the_model_fits_too_if_the_build_can(monkeypatch, device, built, expected):
    import _moefy
    from moefy.devices import fitting_backend

    monkeypatch.setattr(_moefy, "cuda_is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert fitting_backend(device) == expected


def test_a_gpu_that_moefy_cannot_use_is_refused(tiny, tmp_path):
    """PyTorch may see one that moefy does not: a build without CUDA, an old driver, another runtime."""
    import _moefy

    with pytest.raises(_moefy.Error) as error:
        _moefy.Calibrator(str(tiny("llama")), str(tmp_path / "map.h5"), 8, 0.5, -1, 1.0, 0.2, 4, 0, "{}",
                          "", 1, False, lambda warning: None, "cuda", 99)
    code, says = (6, "GPU|device 99") if _moefy.cuda_is_built() else (2, "built without CUDA")
    assert error.value.code == code and re.search(says, str(error.value))
    assert not (tmp_path / "map.h5.lock").exists()


def test_without_text_the_model_writes_it(moefy, tiny):
    model = tiny("llama")
    found = json.loads(calibrate(moefy, model, "map.h5", "--json").stdout)
    assert found["sampled"] == found["tokens"] == 96
    assert (found["experts"], found["shared"], found["top_k"]) == (7, 1, 3)


@pytest.mark.parametrize(("more", "code", "message"), [
    (["--granularity", "1"], 2, "--granularity 1"),
    (["--active", "2"], 2, "--active 2"),
    (["--shared", "lots"], 2, "expected auto or a whole number"),
    (["--text", "none.txt"], 2, "no such file"),
    (["--wrong"], 2, "--wrong"),
    (["--granularity", "4096"], 2, "24 neurons"),
])
def test_wrong_options_are_refused_before_any_work(moefy, tiny, tmp_path, more, code, message):
    result = calibrate(moefy, tiny("llama"), "map.h5", *more, code=code)
    assert message in result.stderr
    assert result.stderr.rstrip().endswith(f"moefy: exit {code} (usage)")
    assert not list(tmp_path.glob("map*"))


def test_a_model_without_tokenizer_or_weights_is_named(moefy, tiny, tmp_path, text):
    model = tiny("llama")
    for path in model.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in calibrate(moefy, model, "map.h5", "--text", text("a.txt"), code=3).stderr
    assert calibrate(moefy, tmp_path / "none", "map.h5", code=2).stderr


def test_families_without_a_host_are_refused(moefy, tiny, text):
    result = calibrate(moefy, tiny("opt"), "map.h5", "--text", text("a.txt"), code=2)
    assert "no MoE host can carry this model" in result.stderr


def test_a_missing_interpreter_is_told(moefy, tiny):
    result = moefy("calibrate", tiny("llama"), "-o", "map.h5", code=2,
                   env={"MOEFY_PYTHON": "/no/such/python"})
    assert "MOEFY_PYTHON" in result.stderr


def test_use_refit_needs_a_calibrated_map_and_an_moe_host(moefy, tiny, text):
    model = tiny("llama")
    moefy("split", model, "-o", "plain.h5", "--experts", "4")
    assert "moefy calibrate" in moefy("convert", model, "plain.h5", "-o", "out", "--use-refit",
                                      code=2).stderr
    calibrate(moefy, model, "map.h5", "--text", text("a.txt"))
    assert "dense host" in moefy("convert", model, "map.h5", "-o", "out", "--use-refit", "--host",
                                 "dense", code=2).stderr


def test_help_lists_the_commands_of_the_package(moefy):
    listing = moefy("--help").stdout
    for command in ("calibrate", "evaluate"):
        assert re.search(rf"^  {command} ", listing, re.MULTILINE)
        assert "usage: moefy" in moefy(command, "--help").stdout
    assert "calibrate" in moefy("calibrat", code=2).stderr
    assert pathlib.Path(sys.executable).exists()
