"""launch/test --gpu and launch/bench --gpu on machines where something is missing or fails: folders whose
programs are scripts that print what real ones would."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT, program_path

HAS_GPU = "built with CUDA 13.0; GPUs here: 1; ${MOEFY_CUBLAS:-no cuBLAS, products by own kernels}"

# What a gtest program prints. It runs the tests of $TESTS that the filter names, or all; those of $BAD
# fail wherever they run, those of $ALONE are skipped when they run alone and fail else, and that of
# $CRASHING ends the program, and makes the later ones fail.
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
  if [[ " $ALONE " == *" $name "* && $filter != *'*'* ]]; then
    echo "[  SKIPPED ] Backends/Costs.$name/cuda (3 ms)"
  elif [[ " $BAD $ALONE " == *" $name "* ]]; then
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
        tests = {"TESTS": "one two three", "BAD": "", "ALONE": "", "CRASHING": "",
                 "XDG_CACHE_HOME": str(self.top)}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MOEFY_")}
        return subprocess.run([self.top / "launch" / script, "--gpu", *map(str, arguments)], cwd=cwd,
                              env={**inherited, **tests, **variables}, capture_output=True, text=True)


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

    assert result.stdout == "13 passed, 0 failed, 1 skipped\n", result.stderr  # no second GPU
    assert result.returncode == 0


def test_what_fails_runs_once_more_alone(machine):
    result = machine.run("test", machine.programs, "--no-sanitizers", BAD="two")

    assert result.returncode == 1
    assert result.stdout == "10 passed, 3 failed, 1 skipped\n", result.stderr
    assert "FAILED: gpu: test_kernels: 1 tests did not pass; each runs once more alone" in result.stderr
    assert "FAILED: gpu: test_kernels: Backends/Costs.two/cuda, also alone" in result.stderr


def test_what_is_skipped_alone_does_not_count_as_passed(machine):
    result = machine.run("test", machine.programs, "--no-sanitizers", ALONE="two")

    assert result.stdout == "10 passed, 3 failed, 4 skipped\n", result.stderr
    assert "but alone none of its tests fails" in result.stderr


def test_a_crash_shows_its_last_lines_and_the_rest_runs_alone(machine):
    result = machine.run("test", machine.programs, "--no-sanitizers", CRASHING="two")

    assert result.returncode == 1
    assert "FAILED: gpu: test_balance ended with status 134; its last lines:" in result.stderr
    assert "FAILED:   | CUDA error: illegal address" in result.stderr
    assert "but alone none of its tests fails" in result.stderr
    assert result.stdout == "13 passed, 3 failed, 1 skipped\n", result.stderr


def test_nothing_that_ran_is_no_success(machine):
    result = machine.run("test", machine.programs, "--no-sanitizers", TESTS="")

    assert result.returncode == 1
    assert "FAILED: gpu: not one test of the kernels passed" in result.stderr


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


@pytest.mark.parametrize("probe, usable", [
    ("COMPUTE-SANITIZER", True), ("Warning: some feature is not supported", True),
    ("Error: Device not supported", False), ("Internal Sanitizer Error: the device", False)])
def test_compute_sanitizer_is_tried_first(probe, usable, machine):
    write_script(machine.top / "tools/compute-sanitizer", SANITIZER.format(probe=probe))
    result = machine.run("test", machine.programs, PATH=f"{machine.top / 'tools'}:{os.environ['PATH']}")

    if usable:
        assert result.stdout == "15 passed, 1 failed, 1 skipped\n", result.stderr
        assert "FAILED:   | ========= Error: Race reported" in result.stderr
    else:
        assert result.stdout == "13 passed, 0 failed, 2 skipped\n", result.stderr
        assert f"cannot use the device: ========= {probe}" in result.stderr


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
    assert "link: needs two GPUs (there are: 1)" in result.stderr


def bench(machine, *names, **variables):
    """The results by benchmark, and what was said."""
    result = machine.run("bench", machine.programs, "--out", machine.top / "kept", *names, **variables)
    results = {path.name.split("-", 3)[3]: path.read_text() for path in (machine.top / "kept").iterdir()}
    return results, result


def test_benchmarks_can_be_chosen(machine):
    machine.set_moefy(HAS_GPU, "echo '{}'")
    results, result = bench(machine, "kernels", "assign")
    assert result.returncode == 0, result.stderr
    assert set(results) == {"kernels-gpu.json", "assign-gpu.json"}

    results, result = bench(machine, "kernel")
    assert result.returncode == 1 and "there is no benchmark 'kernel' of a GPU" in result.stderr


def test_a_benchmark_that_hangs_is_ended(machine):
    machine.set_moefy(HAS_GPU, "if [ $2 = kernels ]; then sleep 600; fi; echo '{}'")
    results, result = bench(machine, "kernels", "assign", MOEFY_BENCH_SECONDS="1")

    assert result.returncode == 1 and "kernels failed (status 124)" in result.stderr
    assert set(results) == {"assign-gpu.json"}


def test_goals_come_last(machine):
    machine.set_moefy(HAS_GPU, """case "$2" in
  kernels) echo '{"type": "goal", "shape": "8x4/2", "figure": "a / b", "value": 3.0, "at_most": 2, "met": false}'
    echo '{"type": "not measured", "what": "cuBLAS", "reason": "none here"}' ;;
  *) exit 3 ;;
esac""")
    write_script(machine.top / "bench/streamed_layers.py", """print('{"shape": "9x9/3", "goal": {"figure": "c / d",')
print('"value": 1.0, "at_most": 1.1, "met": true}}')""")
    _, result = bench(machine, "kernels", "streamed_layers", "assign", "published")

    assert result.stderr.split("=== Goals\n")[1].splitlines()[:-1] == [
        "not met       a / b (8x4/2): 3, at most 2", "not measured  cuBLAS: none here",
        "met           c / d (9x9/3): 1, at most 1.1", "not measured  assign", "not measured  published"]


def test_published_runs_by_the_first_python_that_can(machine):
    write_script(machine.programs / "bench/bench_cluster_rows", "")
    write_script(machine.top / "bench/published.py",
                 "import os, sys\nif 'ABLE' not in os.environ:\n    sys.exit(77)\nprint('{}')\n")
    able, other = machine.top / "able/python3", machine.top / "other/python3"
    write_script(able, f'#!/bin/sh\nABLE=yes exec {sys.executable} "$@"\n')
    write_script(other, f'#!/bin/sh\nexec {sys.executable} "$@"\n')

    results, result = bench(machine, "published")
    assert results == {} and result.returncode == 0, result.stderr
    assert "published was not measured" in result.stderr
    for variables in ({"MOEFY_PYTHON": str(able)},
                      {"MOEFY_PYTHON": str(other), "PATH": f"{able.parent}:{os.environ['PATH']}"}):
        results, result = bench(machine, "published", **variables)
        assert results == {"published-gpu.json": "{}\n"}, result.stderr
        shutil.rmtree(machine.top / "kept")


# ---- bench/published.py ---------------------------------------------------------------------------

def test_published_says_what_cannot_be_loaded(tmp_path):
    write_script(tmp_path / "torch.py", "raise OSError('libcudart.so.13: cannot open shared object file')")
    done = subprocess.run([sys.executable, ROOT / "bench/published.py"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)})

    assert done.returncode == 77 and done.stdout == ""
    assert "torch (libcudart.so.13: cannot open shared object file)" in done.stderr


# ---- bench/streamed_layers.py ---------------------------------------------------------------------

def test_streamed_layers_compares_the_queue_with_its_layers(tmp_path):
    done = subprocess.run([ROOT / "bench/streamed_layers.py", "--program", program_path(), "--layers", "3",
                           "--shape", "192x16", "--experts", "4", "--repeats", "1", "--backend", "cpu",
                           "--folder", tmp_path], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (run,) = result["runs"]
    goal = result["goal"]
    assert result["device"].startswith("cpu (") and len(result["alone_seconds"]) == 3
    clustering = {phase: seconds for phase, seconds in run["phases"].items() if phase not in ("read", "other")}
    assert {"start", "costs", "solve"} <= set(clustering)
    assert run["clustering_seconds"] == pytest.approx(sum(clustering.values()))
    assert run["ratio_to_clustering_within"] == pytest.approx(run["queue_seconds"] / run["clustering_seconds"])
    assert goal["value"] == pytest.approx(run["queue_seconds"] / sum(result["alone_seconds"]))
    assert goal["at_most"] == 1.1 and goal["met"] == (goal["value"] <= 1.1)
    assert list(tmp_path.iterdir()) == []
