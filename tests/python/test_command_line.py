"""Options of the package's commands: help, mistakes, and files of options."""

import json

import pytest

COMMANDS = ["record", "calibrate", "recover", "evaluate"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_screen_and_ends_with_an_example(moefy, command):
    text = moefy(command, "--help").stdout

    assert len(text.splitlines()) <= 24
    assert text.splitlines()[-1].startswith(f"example: moefy {command} ")
    everything = moefy(command, "--help-all").stdout
    assert "--config FILE" in everything and len(everything) > len(text)


def test_everything_wrong_is_told_at_once_with_the_nearest_names(moefy):
    result = moefy("calibrate", "--granularty", "3", "model", "--seed", "-1", "--threads=0", code=2)

    for words in ("-o/--output is missing", "--granularty is unknown; did you mean --granularity?",
                  "--seed -1 is negative", "--threads 0 is below 1"):
        assert words in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("arguments, message", [
    (["calibrate", "m", "-o", "x.h5", "--gran", "16"], "--gran is unknown"),
    (["calibrate", "m", "more", "-o", "x.h5"], "'more' is one argument too many"),
    (["calibrate", "m", "-o", "x.h5", "--tokens", "many"], "--tokens"),
    (["evaluate", "m"], "moefy: --text is missing"),
    (["record", "m", "-o"], "expected one argument"),
    (["record", "m", "-o", "x.h5", "--config", "none.json"], "none.json"),
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
    ["calibrate", "llama", "-o", "llama", "--text", "a.txt"],
    ["evaluate", "llama", "--text", "a.txt", "-o", "llama/model.safetensors"],
    ["evaluate", "llama", "--text", "a.txt", "--plot", "a.txt"],
    ["recover", "out", "--teacher", "llama", "--text", "a.txt", "-o", "llama/"],
    ["recover", "out/moe", "--teacher", "llama", "--text", "a.txt", "-o", "out"],
])
def test_an_output_never_replaces_what_is_read(moefy, tiny, text, tmp_path, arguments):
    tiny("llama")
    text("a.txt")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    result = moefy(*arguments, "--force", code=2)

    assert "choose another place" in result.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
