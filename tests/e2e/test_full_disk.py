"""A full disk: exit 4 with what was needed, nothing half-written, and a second try works."""

import os
import subprocess

import pytest

from conftest import write_llama


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def model(tmp_path):
    return write_llama(tmp_path / "model", layers=4, hidden=64, ffn=512)


def test_split(moefy, model, small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 200_000)

    result = moefy("split", model, "-o", small_disk / "map.h5", "--experts", 64, check=False)

    assert result.returncode == 4, result.stderr
    assert "map.h5" in result.stderr
    left = {p.name for p in small_disk.iterdir()}
    assert left <= {"filler", "map.h5.journal"}
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    moefy("split", model, "-o", small_disk / "map.h5", "--experts", 64)
    assert {p.name for p in small_disk.iterdir()} == {"map.h5"}


def test_convert(moefy, model, small_disk):
    moefy("split", model, "-o", "map.h5", "--experts", 8)

    result = moefy("convert", model, "map.h5", "-o", small_disk / "out", check=False)

    assert result.returncode == 4, result.stderr
    assert "bytes" in result.stderr
    assert list(small_disk.iterdir()) == []
