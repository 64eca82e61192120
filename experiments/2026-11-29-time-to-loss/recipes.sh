#!/bin/sh
# Each recipe with three seeds, in FOLDER/NAME-SEED; goes on where it was stopped. Seed 0 is scored eight times on
# its way, for the figure, the others at their end.
#   sh experiments/2026-11-29-time-to-loss/recipes.sh FOLDER
set -e
folder="$1"

# NAME STEPS SETTINGS …
train() {
    name="$1" steps="$2" every="$2"
    shift 2
    [ "$seed" = 0 ] && every=$((steps / 8))
    python -m harness.train "$@" "train.steps=$steps" "eval.every=$every" eval.untrained=false \
        eval.sample_tokens=0 observe=off "seed=$seed" "run_dir=$folder/$name-$seed" resume=auto
}

for seed in 0 1 2; do
    train mlp 6000 experiment=fast_mlp
    train wavenet 3000 experiment=fast_wavenet
    train megabyte 1000 experiment=fast_megabyte
    train lstm 1500 experiment=cross_the_floor
    train gpt 1000 experiment=fast_gpt
    train mamba2 600 experiment=fast_mamba2
    train gated_deltanet 600 experiment=fast_gated_deltanet
    # Those without a recipe: what a search chose for a thousand steps, and a rate that falls to zero.
    train gru 720 experiment=searched model=gru schedule=linear
    train rnn 880 experiment=searched model=rnn schedule=linear
done
