# shellcheck shell=bash disable=SC2034
# Sourced by the scripts of this folder: where things lie, and how to speak.

launch_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
top=$(dirname "$launch_folder")

# Paths below the checkout count as relative, so that a fresh clone finds what another one compiled.
export CCACHE_BASEDIR=$top CCACHE_NOHASHDIR=1

demo_requirements=$launch_folder/requirements.txt
model_requirements=$launch_folder/requirements-model.txt
test_requirements=$launch_folder/requirements-test.txt

heading() { printf '\n=== %s\n' "$*" >&2; }
say() { printf '%s\n' "$*" >&2; }
fail() {
  printf '%s: %s\n' "launch/$(basename "$0")" "$*" >&2
  exit 1
}

hash_of() { cat "$@" | sha256sum | cut -c1-12; }

# The system's own Python: another environment that happens to be active must not change the result.
system_python() {
  if [ -x /usr/bin/python3 ]; then echo /usr/bin/python3; else command -v python3 || true; fi
}

# A GPU that could be used; whether it can is for the program to say.
gpu_is_here() {
  local devices=(/dev/nvidia[0-9]*)
  [ -e "${devices[0]}" ] || { nvidia-smi -L 2>/dev/null || true; } | grep -q '^GPU '
}

# program_folder FOLDER: its full path; it is an unpacked bundle, or a build folder.
program_folder() {
  local folder
  folder=$(readlink -f "$1") || true
  [ -x "$folder/bin/moefy" ] || fail "there is no bin/moefy in '$1'"
  printf '%s\n' "$folder"
}

# helper_of FOLDER NAME: the path of another program there.
helper_of() {
  local place
  for place in bin tests bench; do
    if [ -x "$1/$place/$2" ]; then
      printf '%s\n' "$1/$place/$2"
      return
    fi
  done
  return 1
}

# cuda_line PROGRAM: what a moefy says of its kernels for GPUs, and of GPUs here.
cuda_line() { "$1" --version | sed -n 's/^ *CUDA kernels *//p'; }

# need_gpu PROGRAM: fails unless this moefy can use a GPU of this machine.
need_gpu() {
  local line
  "$1" --version >&2 || fail "$1 does not run here"
  line=$(cuda_line "$1")
  [[ $line != 'not built'* ]] || fail "$1 is built without CUDA"
  [[ $line == *'GPUs here: '* ]] || fail "$1 can use no GPU: $line"
}

# The cuBLAS of this major version of CUDA that python3 has installed, if it has.
cublas_of_python() {
  python3 - "$1" <<'END' 2>/dev/null || true
import pathlib, sys
for folder in sys.path:
    for place in ("nvidia/cu" + sys.argv[1], "nvidia/cublas"):
        library = pathlib.Path(folder, place, "lib", "libcublas.so." + sys.argv[1])
        if library.exists():
            sys.exit(print(library))
END
}

# choose_cublas PROGRAM: where moefy finds none, and none is named, that of python3 will do.
choose_cublas() {
  local line library
  line=$(cuda_line "$1")
  if [ -z "${MOEFY_CUBLAS:-}" ] && [[ $line == *'no cuBLAS'* ]]; then
    library=$(cublas_of_python "$(sed -n 's/^built with CUDA \([0-9]*\).*/\1/p' <<<"$line")")
    if [ -n "$library" ]; then export MOEFY_CUBLAS=$library; fi
  fi
  say "$(cuda_line "$1" | sed 's/.*; //')"
}

# The virtual environment lies outside the checkout, so that every clone finds the same one. Its name
# changes with the requirements and with the system's Python.
venv_folder() {
  local interpreter
  interpreter=$(basename "$(readlink -f "$(system_python)")")
  printf '%s/moefy/venv-%s-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$interpreter" \
    "$(hash_of "$demo_requirements" "$model_requirements")"
}

venv_python() { printf '%s/bin/python\n' "$(venv_folder)"; }
