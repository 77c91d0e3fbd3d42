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

# The virtual environment lies outside the checkout, so that every clone finds the same one. Its name
# changes with the requirements and with the system's Python.
venv_folder() {
  local interpreter
  interpreter=$(basename "$(readlink -f "$(system_python)")")
  printf '%s/moefy/venv-%s-%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}" "$interpreter" \
    "$(hash_of "$demo_requirements" "$model_requirements")"
}

venv_python() { printf '%s/bin/python\n' "$(venv_folder)"; }
