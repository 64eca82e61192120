#!/usr/bin/env bash
# What a GPU is to answer, in one run of about ten minutes:
#   experiments/2026-11-29-speed/gpu.sh NANOGPT MEGABYTE TEXT FOLDER
# NANOGPT, MEGABYTE: checkouts, as for against.py. TEXT: tiny_shakespeare. FOLDER: for logs and runs.
# DEVICE=cpu tries the script itself out where there is no GPU, with a few steps of everything.
set -uo pipefail
nanogpt=$1 megabyte=$2 text=$3 folder=$4
device=${DEVICE:-cuda}
here=$(dirname "$0")
mkdir -p "$folder"

part() {  # name, command …: its output goes to a file too, and a failure does not end the rest
    local name=$1
    shift
    echo "== $name" >&2
    "$@" 2>&1 | tee "$folder/$name.txt" || echo "$name failed" >&2
}

if [ "$device" = cuda ]; then
    part device nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv
    pairs=20 steps=2000 rows=()
    recipe=(model.n_layer=6 model.n_head=6 model.n_embd=384 train.batch_size=64 train.seq_len=256)
else
    pairs=2 steps=3 rows=("63 characters, 0.8 M, alone")
    recipe=(train.batch_size=2 eval.part=0.01)
fi
# The tests that need a GPU: precisions, devices, and flash-linear-attention's kernels.
part tests python -m pytest -q -m "not long" tests/zoo/test_fla_kernels.py tests/compute/test_precision.py
# A step of 124 M and of 10.65 M parameters and sampling, beside nanoGPT, eager and compiled.
part against python "$here/against.py" "$nanogpt" "$megabyte" --device "$device" --pairs "$pairs" "${rows[@]}"
# nanoGPT's Shakespeare model to its 1.4697 nats of validation: loss over seconds are in metrics.jsonl.
part shakespeare python -m harness.train model=gpt data=text data.path="$text" \
    'data.split=[0.9,0.1,0.0]' device="$device" model.bias=false model.dropout=0.2 \
    model.activation=gelu_exact "${recipe[@]}" optimizer=muon optimizer.lr=3e-3 \
    train.steps="$steps" eval.every=250 eval.untrained=false eval.sample_tokens=0 observe=off \
    run_dir="$folder/shakespeare"
# What the loop adds, and where a step's time goes.
part bench python -m harness.bench model=gpt device="$device" "${recipe[@]}"
