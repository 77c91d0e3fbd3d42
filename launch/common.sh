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
  folder=$(readlink -f "$1") || fail "there is no bin/moefy in '$1'"
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

# gpus_of PROGRAM: how many GPUs it sees here.
gpus_of() {
  local count
  count=$(cuda_line "$1" | sed -n 's/.*GPUs here: \([0-9]*\).*/\1/p')
  printf '%s\n' "${count:-0}"
}

# need_gpu PROGRAM: fails unless this moefy can use a GPU of this machine.
need_gpu() {
  local line
  "$1" --version >&2 || fail "$1 does not run here"
  line=$(cuda_line "$1")
  [[ $line != 'not built'* ]] || fail "$1 is built without CUDA"
  [[ $line == *'GPUs here: '* ]] || fail "$1 can use no GPU: $line"
}

# library_of_python NAME PLACE…: a library that python3 has installed in one of these places, if it has.
library_of_python() {
  python3 - "$@" <<'END' 2>/dev/null || true
import pathlib, sys
name, *places = sys.argv[1:]
for folder in sys.path:
    for place in places:
        library = pathlib.Path(folder, place, "lib", name)
        if library.exists():
            sys.exit(print(library))
END
}

# choose_cublas PROGRAM: where moefy finds none, and none is named, that of python3 will do.
choose_cublas() {
  local line library version
  line=$(cuda_line "$1")
  if [ -z "${MOEFY_CUBLAS:-}" ] && [[ $line == *'no cuBLAS'* ]]; then
    version=$(sed -n 's/^built with CUDA \([0-9]*\).*/\1/p' <<<"$line")
    library=$(library_of_python "libcublas.so.$version" "nvidia/cu$version" nvidia/cublas)
    if [ -n "$library" ]; then export MOEFY_CUBLAS=$library; fi
  fi
  say "$(cuda_line "$1" | sed 's/.*; //')"
}

# The same for NCCL, which moefy does not look for before it needs it.
choose_nccl() {
  local library name=libnccl.so.2
  [ -z "${MOEFY_NCCL:-}" ] || return 0
  if python3 -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$name" 2>/dev/null; then return; fi
  library=$(library_of_python "$name" nvidia/nccl)
  if [ -n "$library" ]; then
    export MOEFY_NCCL=$library
    say "NCCL: $library"
  fi
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
