"""Options of the package's commands: help, mistakes, and files of options."""

import json
import subprocess
import sys

import pytest

from conftest import ROOT

COMMANDS = ["record", "calibrate", "recover", "evaluate"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen_and_ends_with_an_example(moefy, command):
    text = moefy(command, "--help").stdout

    assert len(text.splitlines()) <= 24
    assert text.splitlines()[-1].startswith(f"example: moefy {command} ")
    everything = moefy(command, "--help-all").stdout
    assert "--config FILE" in everything and len(everything) > len(text)


def test_the_command_line_does_not_wait_for_pytorch():
    seen = subprocess.run([sys.executable, "-c", "import sys, moefy.cli; moefy.cli.make_parser();"
                           " print('torch' in sys.modules)"], cwd=ROOT / "python", capture_output=True, text=True)
    assert seen.stdout == "False\n", seen.stderr


def test_everything_wrong_is_told_at_once_with_the_nearest_names(moefy):
    result = moefy("record", "--lenght", "3", "model", "--seed", "-1", "--threads=0", code=2)

    for words in ("-o/--output is missing", "--text is missing",
                  "--lenght is unknown; did you mean --length",
                  "--seed -1 is below 0", "--threads 0 is below 1"):
        assert words in result.stderr
    assert result.stdout == ""


def test_bad_values_and_unknown_options_are_told_together(moefy, text, tmp_path):
    (tmp_path / "config.json").write_text('{"granularty": 4}')
    result = moefy("calibrate", "model", "-o", "x.h5", "--tokens", "many", "--log-level", "loud", "--shared",
                   "lots", "--active", "nan", "--refit", "-1", "--granularity", "1", "--length", "0",
                   "--text", "none.txt", "--wrong", "--config", "config.json", code=2)
    for words in ("--tokens 'many': expected a whole number",
                  "--log-level 'loud' is unknown; valid: debug, info, warning, error",
                  "--shared 'lots': expected auto or a whole number", "--active 'nan': expected a number",
                  "--refit -1 is negative", "--granularity 1 is not between", "--length 0 is below 2",
                  "none.txt: no such file", "option --wrong is unknown", "option 'granularty' is unknown"):
        assert words in result.stderr
    result = moefy("recover", "--minutes", "0", "--rate=-1", "--precision", "fp8", "--batch", "0", "--length",
                   code=2)
    for words in ("--precision 'fp8' is unknown; valid: auto, fp32, bf16", "expected one argument"):
        assert words in result.stderr
    result = moefy("recover", "--minutes", "0", "--rate=-1", "--batch", "0", code=2)
    for words in ("--minutes 0.0 is not above 0", "--rate -1.0 is not above 0", "--batch 0 is below 1",
                  "--teacher is missing", "OUT is missing"):
        assert words in result.stderr
    result = moefy("evaluate", "m", "--text", "none.txt", "--top-k", "4,x", "--sequences", "0", code=2)
    for words in ("--top-k '4,x': expected whole numbers", "--sequences 0 is below 1", "no such file"):
        assert words in result.stderr


def test_values_are_spelt_with_hyphens_or_underscores(moefy, tmp_path):
    for value in ("feature-grad", "feature_grad"):
        resolved = moefy("record", "m", "--importance-type", value, "--dump-config").stdout
        assert json.loads(resolved)["importance-type"] == "feature-grad"
        (tmp_path / "config.json").write_text(json.dumps({"importance-type": value}))
        resolved = moefy("record", "m", "--config", "config.json", "--dump-config").stdout
        assert json.loads(resolved)["importance-type"] == "feature-grad"


@pytest.mark.parametrize("arguments", [
    ["record", "llama", "--text", "a.txt", "-o", "x.h5"], ["calibrate", "llama", "-o", "x.h5"],
    ["recover", "out", "--teacher", "llama", "--text", "a.txt", "-o", "x"],
    ["evaluate", "llama", "--text", "a.txt", "-o", "x.json"]])
def test_a_gpu_that_is_not_there_is_exit_6_and_leaves_nothing(moefy, tiny, text, tmp_path, arguments):
    tiny("llama")
    text("a.txt")
    before = set(tmp_path.iterdir())

    result = moefy(*arguments, "--device", "cuda", code=6, env={"CUDA_VISIBLE_DEVICES": ""})

    assert "finds no NVIDIA GPU" in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 2
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("arguments", [
    ["record", "m", "--text", "a.txt", "-o", "none/x.h5"], ["calibrate", "m", "-o", "none/x.h5"],
    ["recover", "m", "--teacher", "m", "--text", "a.txt", "-o", "none/x"],
    ["evaluate", "m", "--text", "a.txt", "-o", "none/x.json"],
    ["evaluate", "m", "--text", "a.txt", "--plot", "none/x.png"]])
def test_a_missing_folder_is_exit_4(moefy, text, arguments):
    text("a.txt")
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    assert "no such folder" in moefy(*arguments, code=4).stderr


@pytest.mark.parametrize("arguments, message", [
    (["calibrate", "m", "-o", "x.h5", "--gran", "16"], "--gran is unknown"),
    (["calibrate", "m", "more", "-o", "x.h5"], "'more' is one argument too many"),
    (["calibrate", "m", "-o", "x.h5", "--tokens", "many"], "--tokens"),
    (["evaluate", "m"], "moefy: --text is missing"),
    (["record", "m", "-o"], "expected one argument"),
    (["record", "m", "-o", "x.h5", "--config", "none.json"], "none.json"),
    (["calibrate", "m", "-o", "x.h5", "--preset", "nope"], "--preset 'nope' is unknown; valid: default, thorough"),
    (["record", "m", "-o", "x.h5", "--preset", "thorough"], "--preset 'thorough' is unknown; valid: default"),
])
def test_wrong_usage_is_exit_2_and_touches_nothing(moefy, tmp_path, arguments, message):
    assert message in moefy(*arguments, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_dump_config_fed_back_gives_the_same(moefy, tmp_path):
    first = moefy("calibrate", "model", "--granularity", "16", "--text", "a.txt", "b.txt", "--json",
                  "--dump-config").stdout
    (tmp_path / "config.json").write_text(first)

    again = moefy("calibrate", "--config", "config.json", "--dump-config").stdout
    other = moefy("calibrate", "--config", "config.json", "--granularity=8", "--dump-config").stdout

    assert json.loads(again) == json.loads(first)
    assert json.loads(first)["text"] == ["a.txt", "b.txt"]
    assert json.loads(other) == json.loads(first) | {"granularity": 8}


def test_command_line_beats_file_beats_preset(moefy, tmp_path):
    (tmp_path / "preset.json").write_text('{"preset": "thorough", "seed": 5}')
    (tmp_path / "tokens.json").write_text('{"tokens": 5}')

    def resolved(*arguments):
        values = json.loads(moefy("calibrate", *arguments, "--dump-config").stdout)
        return values["tokens"], values["seed"]

    default, preset = resolved(), resolved("--preset", "thorough")

    assert preset[0] > default[0]
    assert resolved("--config", "preset.json") == (preset[0], 5)
    assert resolved("--config=tokens.json", "--preset=thorough") == (5, default[1])
    assert resolved("--config=tokens.json", "--preset=thorough", "--tokens=6") == (6, default[1])


@pytest.mark.parametrize("content, message", [
    ('{"granularty": 4}', "option 'granularty' is unknown; did you mean granularity?"),
    ('{"tokens": "many"}', "option 'tokens' cannot be"), ('{"tokens": true}', "option 'tokens'"),
    ('{"text": "a.txt"}', "option 'text'"), ('{"json": 1}', "option 'json'"),
    ("[]", "expected a JSON object"), ("{", "config.json")])
def test_files_of_options_are_checked(moefy, tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)

    result = moefy("calibrate", "model", "-o", "x.h5", "--config", "config.json", code=2)

    assert message in result.stderr
    assert not (tmp_path / "x.h5").exists()


def test_a_file_of_options_runs(moefy, tiny, text, tmp_path):
    words = str(text("a.txt"))
    (tmp_path / "config.json").write_text(json.dumps(
        {"text": [words], "length": 16, "max-tokens": 96, "output": "rec.h5", "quiet": True}))

    moefy("record", tiny("llama"), "--config", "config.json")

    assert (tmp_path / "rec.h5").exists()


@pytest.mark.parametrize("arguments", [
    ["record", "llama", "-o", "llama/config.json", "--text", "a.txt"],
    ["record", "llama", "-o", "a.txt", "--text", "a.txt"],
    ["calibrate", "llama", "-o", "llama/model.safetensors", "--text", "a.txt"],
    ["evaluate", "llama", "--text", "a.txt", "-o", "llama/model.safetensors"],
    ["evaluate", "llama", "--text", "a.png", "--plot", "a.png"],
    ["recover", "out", "--teacher", "llama", "--text", "a.txt", "-o", "llama/"],
    ["recover", "out/moe", "--teacher", "llama", "--text", "a.txt", "-o", "out"],
])
def test_an_output_never_replaces_what_is_read(moefy, tiny, text, tmp_path, arguments):
    tiny("llama")
    text("a.txt")
    text("a.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    result = moefy(*arguments, "--force", code=2)

    assert "choose another place" in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_log_has_what_the_screen_does_not(moefy, tiny, text, tmp_path):
    result = moefy("record", tiny("llama"), "--text", text("a.txt"), "--length", "16", "--max-tokens", "96",
                   "-o", "rec.h5", "--log-level", "warning", "--log", "run.log")
    again = moefy("record", tiny("llama"), "--text", text("a.txt"), "--length", "16", "--max-tokens", "96",
                  "-o", "rec.h5", "--log-level", "warning", "--log", "again.log")

    assert result.stderr == again.stderr == ""
    log = (tmp_path / "run.log").read_text()
    assert " rank 0 " in log and '"max-tokens": 96' in log and "rec.h5: 96 tokens" in log
    assert " info rec.h5: already done" in (tmp_path / "again.log").read_text()


def test_errors_are_in_the_log(moefy, tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    moefy("record", tiny("llama"), "--text", "empty", "-o", "rec.h5", "--log", "run.log", code=3)

    assert " error empty: no text files" in (tmp_path / "run.log").read_text()
    assert "cannot open the log file" in moefy("record", tiny("llama"), "--text", "empty", "-o",
                                               "rec.h5", "--log", "none/run.log", code=4).stderr


def test_a_time_is_a_number_and_a_unit(moefy):
    for given, seconds in (("90", 90), ("90s", 90), ("1.5m", 90), ("2min", 120), ("0.5h", 1800)):
        resolved = json.loads(moefy("record", "m", "--timeout", given, "--dump-config").stdout)
        assert resolved["timeout"] == seconds
    assert "--timeout" in moefy("record", "m", "--timeout", "soon", code=2).stderr


def test_a_full_gpu_is_exit_6(capsys):
    from moefy.cli import say_error

    class OutOfMemoryError(RuntimeError):
        """As PyTorch has it."""

    assert say_error(OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee …")) == 6
    assert "Tried to allocate 2.00 GiB. --device cpu needs no GPU" in capsys.readouterr().err
