#!/usr/bin/env bash
# First run on a machine with a GPU, in one window of ten minutes.
#
#   usage: bash benchmarks/first_contact.sh [SECONDS]    in the root of the repository, 570 by default
#
# The stages with the most information come first. Each has a time limit. A stage that fails is reported and the next
# one runs. A stage that would start too late is skipped. $OUT gets the results: summary.txt, tests.log, kernels.json,
# gpu.json, engines.json where TensorRT is installed, and logs.txt. The exit code is 2 without a GPU, else 0.
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
BACKEND_TESTS=(tests/test_cuda.py tests/test_tensorrt_on_gpu.py)
FIND_GPU="from seginfer._system.driver import find_gpu; print(find_gpu())"
MARKED="needs_cuda and not full"
RANDOM_CASES="import sys; sys.path[:0] = ['tests', '.']; import gpu_cases; gpu_cases.check_many(8)"
COMPILED_CORE=seginfer._ext
KERNEL_NAMES=regex:seginfer
OUTCOME='^(FAILED|ERROR)|(passed|failed|skipped).* in '
CASES='ms,|x its network|wrong|gpu.py:'

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
  if ! command -v "$1" >/dev/null; then
    say "MISSING $name: $1 is not installed"
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
say "python $(python3 -c 'import platform; print(platform.python_version())'), $(nproc) cores, $(uname -rm)"
if ! gpu=$(python3 -c "$FIND_GPU" 2>&1); then
  say "STOPPED: ${gpu##*Error: }"
  exit 2
fi

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

# CMake finds nanobind beside the interpreter only. Without SEGINFER_NEED_CORE a build that fails is no error of pip.
nanobind_DIR=$(python3 -m nanobind --cmake_dir 2>/dev/null) && export nanobind_DIR
install=(python3 -m pip install -q --no-build-isolation --no-deps -e .)
CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) SEGINFER_NEED_CORE=1 timeout 170 "${install[@]}" >"$OUT/build.log" 2>&1 &
build=$!

# 1. The driver, beside the build; then the kernels.
stage "probe: driver, copies, captures" 110 probe.log python3 "$PROBE" environment copies capture
if ! wait $build; then
  say "FAILED build"
  SEGINFER_PURE=1 timeout 60 "${install[@]}" >>"$OUT/build.log" 2>&1
fi
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
summarize tests.log "$OUTCOME"
grep -q ' passed' "$OUT/tests.log" 2>/dev/null || say "NO TEST RAN: all were skipped, or none was collected"

# 3. Kernels against the copy bandwidth, with more frames than the cache of a large GPU holds.
stage kernels 90 kernels.log python3 "$KERNELS" --frames 128 --folder "$OUT/kernels"
summarize kernels.log 'of copy|^copy|WRONG|FAILED'

# 4. Whole frames beside PyTorch. The file is written after every case.
frames=(python3 "$FRAMES" --peers eager --sizes 512x1024)
stage frames 200 gpu.log "${frames[@]}" --backends torch --batches 1 4 16 --minutes 2.7 --json "$OUT/gpu.json"
summarize gpu.log "$CASES"

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

# 7. Engines, where TensorRT is installed, and ONNX Runtime.
stage "tests of backends" 150 backends.log "${pytest[@]}" "${BACKEND_TESTS[@]}"
summarize backends.log "$OUTCOME"
if python3 -c 'import tensorrt' 2>/dev/null || python3 -c 'import tensorrt_rtx' 2>/dev/null; then
  stage engines 400 engines.log "${frames[@]}" --backends tensorrt tensorrt_rtx --batches 1 4 --json "$OUT/engines.json"
  summarize engines.log "$CASES"
fi

for file in "$OUT"/kernels/*.json; do cp "$file" "$OUT/kernels.json"; done
cat "$OUT/backends.log" >>"$OUT/tests.log" 2>/dev/null
logs=("$OUT"/{setup,kernels,gpu,engines,sanitizer,ncu,probe}.log)
tail -c 200000 "${logs[@]}" >"$OUT/logs.txt" 2>/dev/null
rm -rf "$OUT"/{kernels,kncu} "$OUT/backends.log" "${logs[@]}"
say "done with $(seconds_left) s left"
cat "$SUMMARY"
