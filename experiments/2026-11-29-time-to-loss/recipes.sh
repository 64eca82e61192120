#!/bin/sh
# Each recipe with three seeds: FOLDER/NAME-SEED. Goes on where it was stopped. The first seed is scored at a
# hundredth place of its training or so, for the figure; the others at their end.
#   sh experiments/2026-11-29-time-to-loss/recipes.sh FOLDER
set -e
for seed in 0 1 2; do
    for name in fast_gpt fast_wavenet fast_mlp fast_megabyte fast_mamba2 fast_gated_deltanet fast_gru fast_rnn cross_the_floor; do
        python -m harness.train "experiment=$name" "seed=$seed" eval.sample_tokens=0 observe=off \
            "run_dir=$1/$name-$seed" resume=auto
    done
done
