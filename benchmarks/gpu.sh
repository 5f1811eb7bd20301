#!/usr/bin/env bash
# One run on a machine with a GPU, in nine minutes at most: the tests that need a device, then the cases of docs/gpu.md in
# the order of their worth. Each step has a limit of its own; results are stored after each, and a page sums them up.
#
#   benchmarks/gpu.sh           on a GPU; results in gpu-run/, or in $OUT
#   benchmarks/gpu.sh --dry     anywhere: interpreted kernels, few tests, tiny sizes
#   PYTHON=python3.12 benchmarks/gpu.sh
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${OUT:-gpu-run}
mkdir -p "$out"
summary=$out/summary.txt
: > "$summary"
seconds_in_all=540
SECONDS=0

step() { # NAME LIMIT COMMAND...: run it within its limit, keep what it prints, note how it ended
    local name=$1 limit=$2 left=$((seconds_in_all - SECONDS)) begun=$SECONDS status
    shift 2
    if [ "$left" -lt 5 ]; then
        echo "$name: no time left" >> "$summary"
        return
    fi
    timeout --kill-after=5 $((limit < left ? limit : left)) "$@" > "$out/$name.log" 2>&1
    status=$?
    [ $status -eq 124 ] && status="stopped at its limit"
    echo "$name: status $status, $((SECONDS - begun)) s" >> "$summary"
}

if [ "${1:-}" = --dry ]; then
    export TRITON_INTERPRET=1
    device=cpu
    tests=(tests/engine/gpu/test_triton.py -k "two_states or leaky" --maxfail=3)
    sizes() { echo "$2"; }
else
    export TRITON_INTERPRET=0
    device=cuda
    tests=(tests/engine/gpu tests/scale/test_cuda_graphs.py --maxfail=40)
    sizes() { echo "$1"; }
fi

measure() { # CASE LIMIT SHAPE SMALL_SHAPE: a case at a shape, "" for its own
    local shape
    shape=$(sizes "$3" "$4")
    step "$1" "$2" "$python" -m benchmarks --case "$1" --device $device --peers --store "$out" --out "$out/$1-samples.json" \
        ${shape:+--shape "$shape"} $(sizes "" "--repeats 1")
}

step doctor 40 "$python" -m spikeloom doctor
step tests 200 "$python" -m pytest -q -ra -p no:cacheprovider --tb=short "${tests[@]}"
measure leaky 60 500,16,65536 6,2,3
measure spikes 45 500,16,65536 6,2,3
measure linear 60 500,16,16384,5 6,2,8,50
measure recurrent-wide 60 "" 4,2,8
measure half 45 "" 6,2,8
measure start 60 "" ""

{
    echo
    sed -n '/Machine/,/^$/p; /Backends/,/^$/p' "$out/doctor.log"
    grep -E "^(FAILED|ERROR)" "$out/tests.log" | head -20
    tail -n 1 "$out/tests.log"
    for name in leaky spikes linear recurrent-wide half start; do
        echo
        [ -f "$out/$name.log" ] && grep -E "^[^ ].*:|\|| us | ms | s " "$out/$name.log" | head -9
    done
} >> "$summary"
cat "$summary"
echo
echo "whole logs and every sample: $out; into the page: $python -m benchmarks --store $out --page docs/gpu.md"
