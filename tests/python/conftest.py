"""Fixtures of the Python package's tests: the package, the program, and tiny models with tokenizers."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("MOEFY_PROGRAM", ROOT / "build/release/bin/moefy"))
sys.path[:0] = [str(ROOT / "python"), str(PROGRAM.parents[1] / "python"), str(ROOT / "tests/e2e")]

WARM_PYTHON = pathlib.Path(__file__).with_name("warm_python.py")

LETTERS = "abcdefghijklmnopqrstuvwxyz .,"


def write_tokenizer(folder):
    """One token a letter, behind the three special ones that the tiny models know."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2}
    vocabulary.update({letter: 3 + place for place, letter in enumerate(LETTERS)})
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>",
                            eos_token="</s>").save_pretrained(folder)


@pytest.fixture
def tiny(tmp_path):
    """tiny(family) writes a tiny model with a tokenizer and returns its folder."""
    from tiny_models import write_tiny

    def write(family, **options):
        folder = tmp_path / family
        write_tiny(family, folder, **options)
        write_tokenizer(folder)
        return folder

    return write


@pytest.fixture
def text(tmp_path):
    """text(name, words): a file of many words."""

    def write(name, words="the quick brown fox jumps over a lazy dog. "):
        path = tmp_path / name
        path.write_text(words * 40)
        return path

    return write


@pytest.fixture(scope="session")
def warm_python():
    """What must be in the environment of moefy for its commands to find PyTorch imported already."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        with subprocess.Popen([sys.executable, WARM_PYTHON, "--serve", address], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout.readline() == "ready\n"
            yield {"MOEFY_PYTHON": str(WARM_PYTHON), "MOEFY_WARM_PYTHON": address}
            server.stdin.close()


class Moefy:
    def __init__(self, folder, warm_python):
        self.folder = folder
        self.warm_python = warm_python

    def __call__(self, *arguments, code=0, env=None):
        environment = {**os.environ, **self.warm_python, **(env or {})}
        result = subprocess.run([str(PROGRAM), *map(str, arguments)], cwd=self.folder, text=True,
                                capture_output=True, timeout=300, env=environment)
        assert result.returncode == code, result.stderr
        return result


@pytest.fixture
def moefy(tmp_path, warm_python):
    assert PROGRAM.exists(), f"{PROGRAM} is not built; run launch/build"
    return Moefy(tmp_path, warm_python)
