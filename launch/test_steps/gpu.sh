# shellcheck shell=bash
# Sourced by launch/test: what --gpu runs. Every check prints "passed failed skipped" last on stdout.

gpu_filter='*cuda*'
# A fault of a kernel fails every later call of its process, so what failed there runs once more alone,
# for so long a program.
alone_seconds=600
# compute-sanitizer slows kernels down a hundredfold and knows nothing of libraries.
sanitized_filter="$gpu_filter-*Sharded*:*sharded*:*cublas*"
sanitizer_seconds=600

# Names of tests in a log of gtest, by what became of them: OK, SKIPPED or FAILED.
gtest_names() {
  sed -n "s/^\[ *$1 *\] \([^ ,]*\).* ([0-9]* ms)\$/\1/p" "$2"
}

# gtest_list PROGRAM: names of the tests that gpu_filter takes.
gtest_list() {
  timeout -k 10 60 "$1" --gtest_list_tests --gtest_filter="$gpu_filter" |
    awk '/^[^ ]/ { suite = $1 } /^  / { print suite $1 }'
}

# quote_log LOG: its last lines, for the summary.
quote_log() { tail -n 15 "$1" | sed 's/^/FAILED:   | /' >&2; }

# gpu_program PROGRAM: all of its tests, then alone those that did not pass.
gpu_program() {
  local program=$1 name log test status=0 passed failed=0 skipped unfinished end left=0
  name=$(basename "$program")
  log=$results/$name.log
  if ! gtest_list "$program" >"$results/$name.list" 2>"$log"; then
    echo "FAILED: gpu: $name cannot run:" >&2
    quote_log "$log"
    echo "0 1 0"
    return
  fi
  timeout -k 10 1800 "$program" --gtest_filter="$gpu_filter" >"$log" 2>&1 || status=$?
  cat "$log" >&2
  gtest_names OK "$log" >"$results/$name.passed"
  gtest_names SKIPPED "$log" >"$results/$name.skipped"
  passed=$(wc -l <"$results/$name.passed")
  skipped=$(wc -l <"$results/$name.skipped")
  if [ "$status" -ne 0 ]; then
    if ! grep -q '^\[==========\] .* ran\.' "$log"; then
      echo "FAILED: gpu: $name ended with status $status; its last lines:" >&2
      quote_log "$log"
    fi
    mapfile -t unfinished < <(cat "$results/$name".{passed,skipped} | grep -vxFf - "$results/$name.list")
    echo "FAILED: gpu: $name: ${#unfinished[@]} tests did not pass; each runs once more alone" >&2
    end=$((SECONDS + alone_seconds))
    for test in "${unfinished[@]}"; do
      if [ "$SECONDS" -ge "$end" ]; then
        left=$((left + 1))
        continue
      fi
      if timeout -k 10 300 "$program" --gtest_filter="$test" >"$results/$name.alone.log" 2>&1; then
        if [ -n "$(gtest_names SKIPPED "$results/$name.alone.log")" ]; then
          skipped=$((skipped + 1))
        else
          passed=$((passed + 1))
        fi
      else
        failed=$((failed + 1))
        echo "FAILED: gpu: $name: $test, also alone" >&2
      fi
      cat "$results/$name.alone.log" >&2
    done
    if [ "$left" -gt 0 ]; then
      failed=$((failed + left))
      echo "FAILED: gpu: $name: $left more did not pass; $alone_seconds s were too short to run them alone" >&2
    fi
    if [ "$failed" -eq 0 ]; then
      failed=1
      echo "FAILED: gpu: $name ended with status $status, but alone none of its tests fails" >&2
    fi
  fi
  echo "$passed $failed $skipped"
}

gpu_programs() {
  local name program count passed=0 failed=0 skipped=0
  for name in test_kernels test_balance test_jobs; do
    if ! program=$(helper_of "$gpu_folder" "$name"); then
      echo "FAILED: gpu: $name is not in $gpu_folder; pack it with launch/bundle --tests cuda" >&2
      failed=$((failed + 1))
      continue
    fi
    read -r -a count < <(gpu_program "$program")
    if [ "$name" = test_kernels ] && [ "${count[0]}" -eq 0 ]; then
      echo "FAILED: gpu: not one test of the kernels passed" >&2
      failed=$((failed + 1))
    fi
    passed=$((passed + count[0]))
    failed=$((failed + count[1]))
    skipped=$((skipped + count[2]))
  done
  echo "$passed $failed $skipped"
}

# step NAME COMMAND…: one check of the whole program.
step() {
  local name=$1
  shift
  if "$@" >"$results/step.log" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: gpu: $name:" >&2
    quote_log "$results/step.log"
  fi
  cat "$results/step.log" >&2
}

# over_nccl TEXT LOG: counts as skipped what did not go over NCCL, with the line that says why.
over_nccl() {
  grep -q "$1 over NCCL" "$2" && return
  echo "SKIPPED: gpu: not $1 over NCCL: $(grep -m 1 'layers: ' "$2" || echo 'no layer travelled')" >&2
  skipped=$((skipped + 1))
}

# A small model is split on the GPU, and the map checked against the model on the CPU, for few experts
# and for so many that cuBLAS multiplies where it is; on several GPUs several ranks make the same map:
# rank 0 sends the layers over NCCL, or two ranks share the rows of each and add up their sums over NCCL.
gpu_whole_program() {
  local moefy=$gpu_folder/bin/moefy work=$results/whole passed=0 failed=0 skipped=0 gpus experts split many
  if [ -z "$(command -v python3)" ]; then
    echo "SKIPPED: gpu: the whole program: no python3 to write a model with" >&2
    echo "0 0 1"
    return
  fi
  mkdir -p "$work"
  python3 bench/common/made_up_model.py "$work/model" --layers 4 --shape 512x64 >&2 || return
  split=("$moefy" split "$work/model" --backend cuda --reproducible --force)
  for experts in 16 64; do
    step "split into $experts experts on a GPU" timeout -k 10 300 "${split[@]}" --experts "$experts" \
      -o "$work/$experts.h5"
    step "inspect --verify of $experts experts" timeout -k 10 300 "$moefy" inspect "$work/$experts.h5" \
      --verify --model "$work/model"
  done
  gpus=$(gpus_of "$moefy")
  if [ "$gpus" -lt 2 ] || [ -z "$(command -v "${MOEFY_MPIRUN:-mpirun}")" ]; then
    echo "SKIPPED: gpu: several ranks: needs two GPUs (there are: $gpus) and an Open MPI" >&2
    skipped=$((skipped + 1))
  else
    if [ "$gpus" -gt 4 ]; then gpus=4; fi
    # launch/mpirun passes a first TERM on as a wish; Open MPI itself ends what hangs.
    many=(launch/mpirun --timeout 300 -np "$gpus" "${split[@]}" --experts 16)
    step "split on $gpus GPUs" "${many[@]}" -o "$work/many.h5" --feed coordinator
    over_nccl 'sent by rank 0' "$results/step.log"
    step "the map of $gpus GPUs" cmp "$work/16.h5" "$work/many.h5"
    step "split with shared rows on $gpus GPUs" "${many[@]}" -o "$work/shared.h5" --shard-rows 2
    over_nccl sums "$results/step.log"
    step "the map of shared rows" cmp "$work/16.h5" "$work/shared.h5"
  fi
  echo "$passed $failed $skipped"
}

# Why compute-sanitizer cannot look at this device; nothing if it can.
sanitizer_obstacle() {
  local log=$results/probe.log unusable='Device not supported|Internal Sanitizer Error|No attachable process'
  MOEFY_CUBLAS=off timeout -k 10 300 compute-sanitizer --tool memcheck --report-api-errors no "$gpu_folder/bin/moefy" bench kernels \
    --backend cuda --sizes 64x8/4 --repeats 1 >"$log" 2>&1 || true
  cat "$log" >&2
  if grep -q 'ERROR SUMMARY' "$log" && ! grep -qiE "$unusable" "$log"; then
    return
  fi
  grep -m 1 -iE "$unusable" "$log" || tail -n 1 "$log" | grep . || echo "it ended without a word"
}

gpu_sanitizers() {
  local tool program log obstacle status options passed=0 failed=0 skipped=0
  if [ -z "$(command -v compute-sanitizer)" ]; then
    echo "SKIPPED: gpu: no compute-sanitizer here" >&2
    echo "0 0 1"
    return
  fi
  obstacle=$(sanitizer_obstacle)
  if [ -n "$obstacle" ]; then
    echo "SKIPPED: gpu: compute-sanitizer cannot use the device: $obstacle" >&2
    echo "0 0 1"
    return
  fi
  program=$(helper_of "$gpu_folder" test_kernels) || return
  for tool in memcheck racecheck initcheck; do
    options=(--tool "$tool" --error-exitcode 9)
    # Memory that is refused on purpose is no error.
    if [ "$tool" = memcheck ]; then options+=(--report-api-errors no); fi
    log=$results/$tool.log
    status=0
    MOEFY_CUBLAS=off timeout -k 10 "$sanitizer_seconds" compute-sanitizer "${options[@]}" "$program" \
      --gtest_filter="$sanitized_filter" >"$log" 2>&1 || status=$?
    cat "$log" >&2
    if [ "$status" -eq 0 ]; then
      passed=$((passed + 1))
    elif { [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; } && ! grep -qE '^=+ (Invalid|Uninit|Error: Race|Error: Potential)' "$log"; then
      skipped=$((skipped + 1))
      echo "SKIPPED: gpu: compute-sanitizer --tool $tool found nothing in $sanitizer_seconds s and had not ended" >&2
    else
      failed=$((failed + 1))
      echo "FAILED: gpu: compute-sanitizer --tool $tool (status $status):" >&2
      grep -E '^=========' "$log" | sed -n '2,12s/^/FAILED:   | /p' >&2
    fi
  done
  echo "$passed $failed $skipped"
}

# gpu_main [FOLDER] [--no-sanitizers]
gpu_main() {
  local folder='' sanitizers=yes
  while [ $# -gt 0 ]; do
    case $1 in
      --no-sanitizers) sanitizers=no ;;
      -*) usage >&2 && exit 2 ;;
      *)
        [ -z "$folder" ] || { usage >&2 && exit 2; }
        folder=$(program_folder "$1")
        ;;
    esac
    shift
  done
  cd "$top"
  if [ -z "$folder" ]; then
    gpu_is_here || fail "there is no NVIDIA GPU here: nvidia-smi lists none, and there is no /dev/nvidia0"
    launch/setup
    launch/build cuda moefy test_kernels test_balance test_jobs
    folder=$top/build/cuda
  fi
  gpu_folder=$folder
  need_gpu "$gpu_folder/bin/moefy"
  choose_cublas "$gpu_folder/bin/moefy"
  choose_nccl
  rm -rf "$results"
  mkdir -p "$results"
  part gpu "Tests of the kernels on the GPU of this machine" gpu_programs
  part gpu-whole "The whole program on the GPU of this machine" gpu_whole_program
  if [ "$sanitizers" = yes ]; then part gpu-sanitizers "compute-sanitizer" gpu_sanitizers; fi
  print_sum
}
