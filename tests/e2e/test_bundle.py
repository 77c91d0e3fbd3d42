"""launch/bundle: an archive whose program needs nothing but the C library of the machine."""

import os
import random
import re
import shutil
import subprocess
import tarfile

import pytest

from conftest import ROOT, Moefy, write_llama

MIB = 1 << 20
OF_THE_MACHINE = re.compile(r"(linux-vdso|ld-linux.*|libc|libm|libdl|librt|libpthread|libresolv)\.so")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    subprocess.run([ROOT / "launch/bundle", "release", folder], check=True, capture_output=True)
    (archive,) = folder.glob("moefy-*.tar.gz")
    assert archive.stat().st_size < 60 * MIB
    with tarfile.open(archive) as tar:
        tar.extractall(folder)
    return folder / archive.name.removesuffix(".tar.gz")


def test_every_library_is_its_own_or_the_machines(unpacked):
    lines = subprocess.run(["ldd", unpacked / "bin/moefy"], check=True, capture_output=True, text=True).stdout

    for line in lines.splitlines():
        name, _, found = line.strip().partition(" => ")
        assert OF_THE_MACHINE.match(os.path.basename(name)) or found.startswith(str(unpacked)), line
    assert "libmpi" not in lines


def test_it_splits_on_its_own(unpacked, tmp_path):
    write_llama(tmp_path / "model")
    command = [unpacked / "bin/moefy", "split", "model", "-o", "own.h5", "--experts", "4", "--reproducible"]
    subprocess.run(command, cwd=tmp_path, env={}, check=True, capture_output=True)
    Moefy(tmp_path)("split", "model", "-o", "built.h5", "--experts", "4", "--reproducible")

    assert (tmp_path / "own.h5").read_bytes() == (tmp_path / "built.h5").read_bytes()


def test_it_uses_the_mpi_of_the_machine(unpacked, tmp_path):
    write_llama(tmp_path / "model")
    command = ["split", "model", "-o", "map.h5", "--experts", "4"]
    launcher = [ROOT / "launch/mpirun", "--timeout", "60", "-np", "2", unpacked / "bin/moefy"]
    result = subprocess.run([*launcher, *command], cwd=tmp_path, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert "rank 1" in result.stderr or "   1  " in result.stderr


def test_without_mpi_it_says_so(unpacked, tmp_path):
    (tmp_path / "bin").mkdir()
    os.link(unpacked / "bin/moefy", tmp_path / "bin/moefy")
    (tmp_path / "lib").mkdir()
    for library in (unpacked / "lib").iterdir():
        if library.name != "libmoefy_mpi.so":
            (tmp_path / "lib" / library.name).symlink_to(library)
    launched = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}
    result = subprocess.run([tmp_path / "bin/moefy", "split", "m", "-o", "x.h5", "--experts", "4"],
                            cwd=tmp_path, env=launched, capture_output=True, text=True)

    assert result.returncode == 5
    assert "MPI cannot be loaded: libmoefy_mpi.so" in result.stderr


@pytest.fixture
def checkout(tmp_path):
    """The scripts beside a build that makes every program out of one that is there."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "launch/build").write_text(
        '#!/bin/bash\nfolder=$(dirname "$0")/../build/$1\nmkdir -p $folder/{bin,tests,bench,lib}\n'
        'for name in "${@:2}"; do\n'
        '  case $name in moefy) place=bin ;; test_*) place=tests ;; *) place=bench ;; esac\n'
        '  cp /usr/bin/true "$folder/$place/$name"\ndone\ncp /usr/bin/true "$folder/lib/libmoefy_mpi.so"\n')
    (tmp_path / "LICENSE").write_text("")
    (tmp_path / "README.md").write_text("")
    return tmp_path


def bundle(checkout, *arguments):
    return subprocess.run([checkout / "launch/bundle", *arguments], capture_output=True, text=True)


def test_options_may_stand_anywhere_and_tests_are_packed(checkout):
    result = bundle(checkout, "cuda", "--tests", checkout / "out")

    assert result.returncode == 0, result.stderr
    (archive,) = (checkout / "out").iterdir()
    with tarfile.open(archive) as tar:
        packed = {name.split("/", 1)[1] for name in tar.getnames() if "/bin/" in name}
    assert packed == {f"bin/{name}" for name in (
        "moefy", "test_kernels", "test_balance", "test_jobs", "bench_cluster_rows")}


def test_a_build_that_is_linked_with_cublas_is_refused(checkout):
    (checkout / "build/cuda").mkdir(parents=True)
    (checkout / "build/cuda/CMakeCache.txt").write_text("MOEFY_FAISS_GPU:BOOL=ON\n")
    result = bundle(checkout, "cuda")

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "-DMOEFY_FAISS_GPU=OFF" in result.stderr
    assert not (checkout / "dist").exists()


def test_an_archive_that_is_too_large_is_refused(checkout):
    (checkout / "README.md").write_bytes(random.Random(0).randbytes(61 * MIB))
    result = bundle(checkout)

    assert result.returncode == 1
    assert "the archive has 62 MiB, more than 60" in result.stderr
    assert not list((checkout / "dist").iterdir())
