#!/usr/bin/env bash
# First run on a machine with a GPU, in one window of ten minutes.
#
#   usage: bash benchmarks/first_contact.sh [SECONDS]    in the root of the repository, 570 by default
#
# The stages with the most information come first. Each has a time limit. A stage that fails is reported and the next
# one runs. A stage that would start too late is skipped. $OUT gets the results, eight files at most: summary.txt,
# tests.log, kernels-32.json, gpu-fp32.json, gpu-fp16.json and logs.txt.
#
# Wheels of cuda-core and cuda-bindings for the machine's Python may lie in .fc/, .fc/.whl/ or .whl/, and a copy of this
# script in .fc/.
set -u

# Everything of the repository that this script names. tests/test_first_contact.py checks that it exists.
PROBE=benchmarks/first_contact_probe.py
KERNELS=benchmarks/cuda_kernels.py
FRAMES=benchmarks/gpu.py
KERNEL_TESTS=(tests/test_driver.py tests/test_cuda_on_gpu.py)
FRAME_TESTS=(tests/test_cuda_pipeline_on_gpu.py)
MARKED="needs_cuda and not full"
RANDOM_CASES="import sys; sys.path[:0] = ['tests', '.']; import gpu_cases; gpu_cases.check_many(8)"
COMPILED_CORE=seginfer._ext
KERNEL_NAMES=regex:seginfer

HERE=$(cd "$(dirname "$0")" && pwd)
TMP=${TMPDIR:-/tmp}
OUT=${OUT:-$TMP/first-contact}
END=$(($(date +%s) + ${1:-570}))
SUMMARY=$OUT/summary.txt
SITE=$TMP/site
export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 CUDA_MODULE_LOADING=LAZY SEGINFER_CACHE=$TMP/seginfer-cache

if [ ! -f "$PROBE" ]; then
  echo "expected $PROBE, found none in $PWD; run this in the root of the repository" >&2
  exit 2
fi
mkdir -p "$OUT"
: >"$SUMMARY"

say() { printf '%s\n' "$*" | tee -a "$SUMMARY"; }
seconds_left() { echo $((END - $(date +%s))); }

# stage NAME LIMIT LOG COMMAND...: run a command for LIMIT seconds at most, unless too little time is left.
stage() {
  local name=$1 limit=$2 log=$OUT/$3 start code=0
  shift 3
  if [ "$(seconds_left)" -lt 15 ]; then
    say "SKIPPED $name: $(seconds_left) s left"
    return
  fi
  [ "$limit" -lt "$(seconds_left)" ] || limit=$(($(seconds_left) - 3))
  start=$(date +%s)
  echo "=== $name" >>"$log"
  timeout -k 5 "$limit" "$@" >>"$log" 2>&1 || code=$?
  say "$([ $code = 0 ] && echo ok || echo "FAILED($code)") $name, $(($(date +%s) - start)) s of $limit"
}

# summarize LOG PATTERN: copy the lines of a log that match into the summary.
summarize() { grep -hE "$2" "$OUT/$1" 2>/dev/null | tail -100 >>"$SUMMARY"; }

nvidia-smi --query-gpu=name,driver_version,pcie.link.gen.current,pcie.link.width.current,clocks.sm,memory.total \
  --format=csv,noheader 2>&1 | tee -a "$SUMMARY"
say "python $(python3 -c 'import sys; print(sys.version.split()[0], sys.executable)'), $(nproc) cores, $(uname -r)"

shopt -s nullglob
for folder in .fc .fc/.whl .whl "$HERE" "$HERE/.whl"; do
  wheels=("$folder"/*.whl)
  if [ ${#wheels[@]} -gt 0 ]; then
    stage wheels 40 setup.log python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
      --target "$SITE" "${wheels[@]}"
    export PYTHONPATH=$SITE${PYTHONPATH:+:$PYTHONPATH}
    break
  fi
done

# CMake finds nanobind beside the interpreter only. A build that fails is no error to pip, and NumPy does the work then.
nanobind_DIR=$(python3 -m nanobind --cmake_dir 2>/dev/null) && export nanobind_DIR
CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) timeout 170 python3 -m pip install -q --no-build-isolation --no-deps -e . \
  >"$OUT/build.log" 2>&1 &
build=$!

# 1. The driver, beside the build; then the kernels.
stage "probe: driver, copies, captures" 110 probe.log python3 "$PROBE" environment copies capture
wait $build || say "FAILED build"
cat "$OUT/build.log" >>"$OUT/setup.log" && rm -f "$OUT/build.log"
(cd / && python3 -c "import $COMPILED_CORE") 2>>"$OUT/setup.log" ||
  say "NO COMPILED CORE: results below are compared with NumPy; see setup.log in logs.txt"
stage "probe: kernels, frames" 110 probe.log python3 "$PROBE" kernels frames
summarize probe.log '^PROBE'

# 2. The GPU tests, without the plugins of the repository's own options. Warnings of other versions of other packages are
# no failures here.
pytest=(python3 -m pytest -q --tb=short -o addopts= -o filterwarnings=default -p no:cacheprovider -m "$MARKED")
python3 -c 'import pytest_timeout' 2>/dev/null && pytest+=(--timeout=90)
stage "tests of kernels" 110 tests.log "${pytest[@]}" "${KERNEL_TESTS[@]}"
stage "tests of frames" 130 tests.log "${pytest[@]}" "${FRAME_TESTS[@]}"
summarize tests.log '^(FAILED|ERROR)|(passed|failed|skipped).* in '
grep -q ' passed' "$OUT/tests.log" 2>/dev/null || say "NO TEST RAN: all were skipped, or none was collected"

# 3. Kernels against the copy bandwidth: 32 frames as documented, and more than the cache of a large GPU holds.
stage "kernels, 32 frames" 60 kernels.log python3 "$KERNELS" --frames 32 --folder "$OUT/k32"
stage "kernels, 128 frames" 60 kernels.log python3 "$KERNELS" --frames 128 --folder "$OUT/k128"
summarize kernels.log 'of copy|^copy|differs'

# 4. Whole frames beside PyTorch. One precision per file, because a failed check writes no file.
frames=(python3 "$FRAMES" --backends torch --peers eager --sizes 512x1024 --batches 1 4 16)
stage "frames, fp32" 110 gpu.log "${frames[@]}" --precisions fp32 --minutes 1.4 --json "$OUT/gpu-fp32.json"
stage "frames, fp16" 100 gpu.log "${frames[@]}" --precisions fp16 --minutes 1.3 --json "$OUT/gpu-fp16.json"
summarize gpu.log 'ms,|x its network|wrong|gpu.py:'

# 5. Accesses out of bounds and races, which no comparison of results sees.
for tool in memcheck racecheck; do
  stage $tool 60 sanitizer.log compute-sanitizer --tool=$tool --error-exitcode=1 python3 -c "$RANDOM_CASES"
done
grep -hE 'ERROR SUMMARY|RACECHECK SUMMARY|Invalid|Race' "$OUT/sanitizer.log" 2>/dev/null |
  sort | uniq -c | head -8 >>"$SUMMARY"

# 6. Counters that explain the speed of a kernel.
metrics=(
  smsp__inst_executed.sum
  dram__throughput.avg.pct_of_peak_sustained_elapsed
  lts__t_sectors_op_read.sum
  lts__t_sectors_op_write.sum
  l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum
  smsp__issue_active.avg.pct_of_peak_sustained_active
)
stage ncu 60 ncu.log ncu --clock-control none --kernel-name "$KERNEL_NAMES" --launch-count 14 --set basic \
  --metrics "$(IFS=,; echo "${metrics[*]}")" python3 "$KERNELS" --frames 8 --folder "$OUT/kncu"

for file in "$OUT"/k32/*.json; do cp "$file" "$OUT/kernels-32.json"; done
logs=("$OUT"/{setup,kernels,gpu,sanitizer,ncu,probe}.log "$OUT"/k128/*.json)
tail -c 200000 "${logs[@]}" >"$OUT/logs.txt" 2>/dev/null
rm -rf "$OUT"/{k32,k128,kncu} "$OUT"/{setup,kernels,gpu,sanitizer,ncu,probe}.log
say "done with $(seconds_left) s left"
cat "$SUMMARY"
