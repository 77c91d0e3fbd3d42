"""launch/test --gpu and launch/bench --gpu on machines where something is missing or fails: folders whose
programs are scripts that print what real ones would."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import ROOT, program_path

HAS_GPU = "built with CUDA 13.0; GPUs here: 1; ${MOEFY_CUBLAS:-no cuBLAS, products by own kernels}"

# What a gtest program prints. It runs the tests of $TESTS that the filter names, or all; those of $BAD
# fail wherever they run, and that of $CRASHING ends the program, and makes the later ones fail.
FAKE_TESTS = """#!/bin/bash
filter=${2#*=}
if [ "$1" = --gtest_list_tests ]; then
  echo 'Running main() from somewhere'
  echo 'Backends/Costs.'
  for name in $TESTS; do echo "  $name/cuda  # GetParam() = \\"cuda\\""; done
  exit
fi
filter=${1#*=}
code=0
for name in $TESTS; do
  [[ $filter == *'*'* || $filter == Backends/Costs.$name/cuda ]] || continue
  if [[ $name = "$CRASHING" && $filter == *'*'* ]]; then echo 'CUDA error: illegal address'; exit 134; fi
  if [[ " $BAD " == *" $name "* ]]; then
    echo "[  FAILED  ] Backends/Costs.$name/cuda, where GetParam() = \\"cuda\\" (3 ms)"
    code=1
  else
    echo "[       OK ] Backends/Costs.$name/cuda (3 ms)"
  fi
done
echo '[==========] 3 tests from 1 test suite ran. (9 ms total)'
exit $code
"""


def write_script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Machine:
    """A copy of the scripts, and a folder of programs to give them."""

    def __init__(self, folder):
        self.top = folder / "checkout"
        self.programs = folder / "programs"
        shutil.copytree(ROOT / "launch", self.top / "launch")
        shutil.copytree(ROOT / "bench", self.top / "bench", ignore=shutil.ignore_patterns("results"))
        self.set_moefy(HAS_GPU)
        for name in ("test_kernels", "test_balance", "test_jobs"):
            write_script(self.programs / "bin" / name, FAKE_TESTS)

    def set_moefy(self, cuda_line, command="exit 0"):
        write_script(self.programs / "bin/moefy", f"""#!/bin/bash
if [ "$1" = --version ]; then echo 'moefy 0.1.0 (x)'; echo "  CUDA kernels    {cuda_line}"; exit; fi
{command}
""")

    def run(self, script, *arguments, cwd=None, **variables):
        tests = {"TESTS": "one two three", "BAD": "", "CRASHING": "", "XDG_CACHE_HOME": str(self.top)}
        return subprocess.run([self.top / "launch" / script, "--gpu", *map(str, arguments)], cwd=cwd,
                              env={**os.environ, **tests, **variables}, capture_output=True, text=True)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


@pytest.mark.parametrize("script", ["test", "bench"])
@pytest.mark.parametrize("line, reason", [
    ("built with CUDA 13.0; no GPU here (no driver); no cuBLAS", "can use no GPU: "),
    ("built with CUDA 13.0; no GPU here (the driver supports CUDA 12.4, moefy was built with 13.0); no cuBLAS",
     "the driver supports CUDA 12.4"),
    ("not built", "is built without CUDA")])
def test_a_program_without_a_gpu_is_no_success(script, line, reason, machine):
    machine.set_moefy(line)
    result = machine.run(script, machine.programs)

    assert result.returncode == 1
    assert result.stdout == "" and reason in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("script", ["test", "bench"])
def test_a_folder_is_named_from_where_the_caller_stands(script, machine):
    result = machine.run(script, "nowhere")
    assert result.returncode == 1
    assert result.stderr == f"launch/{script}: there is no bin/moefy in 'nowhere'\n"

    machine.set_moefy("not built")
    result = machine.run(script, "programs", cwd=machine.programs.parent)
    assert "programs/bin/moefy is built without CUDA" in result.stderr


@pytest.mark.skipif(any(pathlib.Path("/dev").glob("nvidia[0-9]*")), reason="there is a GPU")
@pytest.mark.parametrize("script", ["test", "bench"])
def test_nothing_is_built_where_no_gpu_is(script, machine):
    result = machine.run(script)

    assert result.returncode == 1
    assert "there is no NVIDIA GPU here" in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("place", ["nvidia/cu13", "nvidia/cublas"])
def test_cublas_is_taken_from_where_python_has_it(place, machine):
    library = machine.top / "packages" / place / "lib/libcublas.so.13"
    library.parent.mkdir(parents=True)
    library.touch()
    python_path = {"PYTHONPATH": str(machine.top / "packages")}

    result = machine.run("test", machine.programs, "--no-sanitizers", **python_path)
    assert f"\n{library}\n" in result.stderr
    result = machine.run("test", machine.programs, "--no-sanitizers", MOEFY_CUBLAS="off", **python_path)
    assert str(library) not in result.stderr


# ---- launch/test --gpu ----------------------------------------------------------------------------

def test_all_that_runs_is_counted(machine):
    result = machine.run("test", machine.programs, "--no-sanitizers")

    assert result.stdout == "11 passed, 0 failed, 1 skipped\n", result.stderr  # no second GPU
    assert result.returncode == 0


def test_what_fails_runs_once_more_alone(machine):
    result = machine.run("test", machine.programs, "--no-sanitizers", BAD="two")

    assert result.returncode == 1
    assert result.stdout == "8 passed, 3 failed, 1 skipped\n", result.stderr
    assert "FAILED: gpu: test_kernels: 1 tests did not pass; each runs once more alone" in result.stderr
    assert "FAILED: gpu: test_kernels: Backends/Costs.two/cuda, also alone" in result.stderr


def test_a_crash_shows_its_last_lines_and_the_rest_runs_alone(machine):
    result = machine.run("test", machine.programs, "--no-sanitizers", CRASHING="two")

    assert result.returncode == 1
    assert "FAILED: gpu: test_balance ended with status 134; its last lines:" in result.stderr
    assert "FAILED:   | CUDA error: illegal address" in result.stderr
    assert "but alone each of its tests passes" in result.stderr
    assert result.stdout == "11 passed, 3 failed, 1 skipped\n", result.stderr


def test_nothing_that_ran_is_no_success(machine):
    result = machine.run("test", machine.programs, "--no-sanitizers", TESTS="")

    assert result.returncode == 1
    assert "FAILED: gpu: not one test of the kernels ran" in result.stderr


def test_a_bundle_without_tests_is_told_from_one_that_passes(machine):
    (machine.programs / "bin/test_jobs").unlink()
    result = machine.run("test", machine.programs, "--no-sanitizers")

    assert result.returncode == 1
    assert "test_jobs is not in" in result.stderr and "launch/bundle --tests cuda" in result.stderr


SANITIZER = """#!/bin/bash
case "$*" in
  *bench*) echo '========= {probe}'; echo '========= ERROR SUMMARY: 0 errors' ;;
  *racecheck*) echo '========= COMPUTE-SANITIZER'; echo '========= Error: Race reported'; exit 9 ;;
esac
"""


@pytest.mark.parametrize("probe, passed", [("COMPUTE-SANITIZER", 13), ("Error: Device not supported", 11)])
def test_compute_sanitizer_is_tried_first(probe, passed, machine):
    write_script(machine.top / "tools/compute-sanitizer", SANITIZER.format(probe=probe))
    result = machine.run("test", machine.programs, PATH=f"{machine.top / 'tools'}:{os.environ['PATH']}")

    if passed == 13:
        assert result.stdout == "13 passed, 1 failed, 1 skipped\n", result.stderr
        assert "FAILED:   | ========= Error: Race reported" in result.stderr
    else:
        assert result.stdout == "11 passed, 0 failed, 2 skipped\n", result.stderr
        assert "cannot use the device: ========= Error: Device not supported" in result.stderr


# ---- launch/bench --gpu ---------------------------------------------------------------------------

def test_a_benchmark_that_fails_does_not_stop_the_others(machine):
    machine.set_moefy(HAS_GPU, """case "$2" in
  split) echo half; exit 6 ;;
  *) echo '{}' ;;
esac""")
    write_script(machine.top / "bench/streamed_layers.py", "print('{}')")
    result = machine.run("bench", machine.programs, "--out", "kept", cwd=machine.top)

    assert result.returncode == 1, result.stderr
    assert result.stderr.splitlines()[-1] == "launch/bench: failed: split"
    names = {path.name.split("-", 3)[3] for path in (machine.top / "kept").iterdir()}
    assert names == {f"{name}-gpu.json" for name in
                     ("kernels", "assign", "faster", "starts", "streamed_layers")}
    assert "published was not measured" in result.stderr  # there is no bench_cluster_rows


# ---- bench/streamed_layers.py ---------------------------------------------------------------------

def test_streamed_layers_compares_the_queue_with_its_layers(tmp_path):
    done = subprocess.run([ROOT / "bench/streamed_layers.py", "--program", program_path(), "--layers", "3",
                           "--shape", "192x16", "--experts", "4", "--repeats", "1", "--backend", "cpu",
                           "--folder", tmp_path], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (run,) = result["runs"]
    goal = result["goal"]
    clustering = {phase: seconds for phase, seconds in run["phases"].items() if phase not in ("read", "other")}
    assert {"start", "costs", "solve"} <= set(clustering)
    assert run["clustering_seconds"] == pytest.approx(sum(clustering.values()))
    assert goal["value"] == pytest.approx(run["queue_seconds"] / run["clustering_seconds"])
    assert goal["at_most"] == 1.1 and goal["met"] == (goal["value"] <= 1.1)
    assert list(tmp_path.iterdir()) == []
