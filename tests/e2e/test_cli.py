"""The command line: help, wrong options, configuration files."""

import json

import pytest

COMMANDS = ["split", "plan", "convert", "verify", "restore", "inspect", "diff", "bench"]


def test_help_fits_a_screen_and_ends_with_an_example(moefy):
    for command in COMMANDS:
        text = moefy(command, "--help").stdout

        assert len(text.splitlines()) <= 24, command
        assert max(map(len, text.splitlines())) <= 120, command
        assert text.splitlines()[-1].startswith("example: ")
        assert len(moefy(command, "--help-all").stdout) >= len(text)


def test_version_names_every_library(moefy):
    text = moefy("--version").stdout

    for word in ("moefy", "compiler", "MPI", "HDF5", "FAISS", "CPU kernels"):
        assert word in text


@pytest.mark.parametrize("topic", ["architectures", "hosts", "methods", "routers"])
def test_list(moefy, topic):
    assert moefy("--list", topic).stdout.strip()


def test_all_problems_at_once_with_the_nearest_names(moefy):
    result = moefy(
        "split", "nowhere", "--expert", "4", "--method", "kmean", "--experts", "0", "-o", "m.h5", check=False
    )

    assert result.returncode == 2
    assert "--experts" in result.stderr and "kmeans" in result.stderr and "at least 1" in result.stderr
    assert result.stderr.strip().splitlines()[-1] == "moefy: exit 2 (usage)"


@pytest.mark.parametrize(
    "arguments",
    [
        ["splitt", "x"],
        ["split"],
        ["split", "x", "y", "-o", "m.h5", "--experts", "4"],
        ["split", "x", "-o", "m.h5", "--experts", "four"],
        ["split", "x", "-o", "m.h5", "--experts", "-4"],
        ["split", "x", "-o", "m.h5", "--experts", "99999999999999999999"],
        ["split", "x", "-o", "m.h5", "--experts"],
        ["split", "x", "-o", "m.h5", "--experts", "4", "--preset", "nope"],
        ["split", "x", "-o", "m.h5", "--experts", "4", "--timeout", "soon"],
        ["split", "x", "-o", "m.h5", "--experts", "4", "--threads", "0"],
        ["split", "x", "-o", "m.h5", "--experts", "4", "--top-k", "5"],
        ["split", "not/a-model", "-o", "m.h5", "--experts", "4"],
        ["--list", "everything"],
    ],
)
def test_wrong_usage_is_exit_2_and_touches_nothing(moefy, tmp_path, arguments):
    result = moefy(*arguments, check=False)

    assert result.returncode == 2, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_more_experts_than_neurons(moefy, llama):
    result = moefy("split", llama, "-o", "m.h5", "--experts", "97", check=False)

    assert result.returncode == 2
    assert "96 neurons" in result.stderr


def test_dump_config_fed_back_gives_the_same(moefy, tmp_path):
    first = moefy("split", "x", "--experts", 4, "--seed", 7, "--preset", "faster-moefication", "--dump-config")
    (tmp_path / "config.json").write_text(first.stdout)

    second = moefy("split", "x", "--config", "config.json", "--dump-config")

    assert json.loads(second.stdout) == json.loads(first.stdout)
    assert json.loads(first.stdout)["start-iterations"] == "25"


def test_command_line_beats_file_beats_preset(moefy, tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 5, "experts": "4", "start-iterations": 3}')

    dumped = moefy(
        "split", "x", "--config", "config.json", "--seed", 6, "--preset", "faster-moefication", "--dump-config"
    )

    config = json.loads(dumped.stdout)
    assert (config["seed"], config["experts"], config["start-iterations"]) == ("6", "4", "3")
    assert config["start-subsample"] == "false"


def test_underscores_are_accepted_in_values(moefy, llama, tmp_path):
    moefy("split", llama, "-o", "m.h5", "--experts", 8)

    moefy("convert", llama, "m.h5", "-o", "out", "--host", "qwen2_moe")

    assert (tmp_path / "out/config.json").exists()


def test_unknown_key_in_a_configuration_file(moefy, tmp_path):
    (tmp_path / "config.json").write_text('{"expert": 4}')

    result = moefy("split", "x", "--config", "config.json", check=False)

    assert result.returncode == 2 and "experts" in result.stderr
