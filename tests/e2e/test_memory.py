"""Bounded memory: what plan predicts, and what stays in bounds however many layers there are."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import program_path, write_llama
from recorded import write_recordings

ROOT = Path(__file__).resolve().parents[2]
# Stands between mpirun and the program, and leaves the peak of what it started.
WATCH = """
import os, resource, subprocess, sys
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1] + "/" + os.environ["OMPI_COMM_WORLD_RANK"], "w") as file:
    file.write(str(1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def peak(moefy, model, *options):
    return moefy.json_lines("split", model, "-o", "map.h5", "--force", "--quiet", "--threads", 1, *options)[-1][
        "peak_memory"
    ]


def peaks_of_two_ranks(model, folder, *options):
    """Peak memory by rank where rank 0 sends the layers."""
    launch = [ROOT / "launch" / "mpirun", "-np", 2, sys.executable, "-c", WATCH, folder]
    split = [program_path(), "split", model, "-o", folder / "map.h5", "--feed", "coordinator", "--quiet",
             "--threads", 1, *options]
    subprocess.run([str(part) for part in [*launch, *split]], check=True, timeout=120)
    return [int((folder / str(rank)).read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def large_layers(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("large") / "model", layers=2, hidden=1024, ffn=8192)


@pytest.mark.parametrize("options", [[], ["--weights", "concat"], ["--weights", "down"]])
def test_plan_predicts_the_peak_within_a_quarter(moefy, large_layers, options):
    plan = moefy.json_lines("plan", large_layers, "--experts", 32, "--threads", 1, *options)[0]

    measured = peak(moefy, large_layers, "--experts", 32, *options)

    assert plan["peak_memory"] == pytest.approx(measured, rel=0.25)


def test_plan_knows_what_sending_costs(moefy, large_layers, tmp_path):
    plan = moefy.json_lines("plan", large_layers, "--experts", 32, "--threads", 1)[0]

    peaks = peaks_of_two_ranks(large_layers, tmp_path, "--experts", 32)

    assert plan["peak_memory_if_sent"] == pytest.approx(max(peaks), rel=0.25)


def test_peak_is_within_the_promise(moefy, large_layers):
    clustered = 8192 * 1024 * 4

    measured = peak(moefy, large_layers, "--experts", 32)

    assert measured <= 2 * clustered + 150_000_000


def test_peak_grows_with_the_number_of_layers_by_the_map_alone(moefy, tmp_path):
    few = write_llama(tmp_path / "few", layers=2, hidden=256, ffn=4096)
    many = write_llama(tmp_path / "many", layers=26, hidden=256, ffn=4096)

    peaks, sizes = [], []
    for model in (few, many):
        peaks.append(peak(moefy, model, "--experts", 16))
        sizes.append((tmp_path / "map.h5").stat().st_size)

    # Results, HDF5's image of them and the file; a matrix more of each layer would be 100 MB.
    assert peaks[1] - peaks[0] <= 8 * (sizes[1] - sizes[0])


def test_peak_does_not_grow_with_recordings_beyond_the_cache(moefy, tmp_path):
    """Activations are kept up to 256 MB: 8192 tokens of a layer that is wide and thin."""
    cached = 256 << 20
    model = write_llama(tmp_path / "thin", layers=1, hidden=8, ffn=8192, vocab=8)
    peaks = [peak(moefy, model, "--experts", 4, "--shared", 1, "--max-iterations", 1, "--recordings",
                  write_recordings(moefy, model, tmp_path / f"{tokens}.h5", tokens), "--max-tokens", tokens)
             for tokens in (12288, 24576)]

    assert peaks[0] >= cached
    assert peaks[1] <= 1.1 * peaks[0]


@pytest.fixture(scope="module")
def huge_layers(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("huge") / "model", layers=2, hidden=1536, ffn=16384)


@pytest.mark.parametrize("options", [[], ["--shared", 1], ["--weights", "down"]])
def test_no_rank_exceeds_the_promise_where_layers_travel(huge_layers, tmp_path, options):
    clustered = 16384 * 1536 * 4
    experts = 15 if "--shared" in options else 16

    peaks = peaks_of_two_ranks(huge_layers, tmp_path, "--experts", experts, "--max-iterations", 1, *options)

    assert min(peaks) > clustered, "both ranks worked"
    assert max(peaks) <= 2 * clustered + 150_000_000
