#!/bin/sh
# Is it better to go through the text without replacement than to draw each sequence at a random place?
#   sh sweeps/order.sh [FOLDER]                 gpt and lstm, either order, three seeds each; goes on where it was stopped
# The default budget, 2,000 steps: 1.72 epochs of tiny_shakespeare, after which random draws have left 18 % of it unseen.
# Twelve trainings at the rates that a search chose for each (experiments/2026-11-28-searched): both orders have the same.
# Planned for twelve minutes on two idle cores. Validation alone is read. FOLDER/gpt/report.html and FOLDER/lstm/report.html
# have the effect with its interval. The rule, written before the numbers: `shuffled` becomes the default of conf/data
# if it is shown to be better for one of the two and not shown to be worse for the other.
set -e
folder="${1:-runs/order}"
for model in 'gpt optimizer.lr=3.3e-3' 'lstm optimizer.lr=1e-2'; do
    python -m harness.ablate \
        "model=$model init=xavier data=tiny_shakespeare train.steps=2000 eval.every=2000 eval.sample_tokens=0 checkpoint.every=2000" \
        data.order=shuffled \
        --seeds 3 --workers 2 --folder "$folder/${model%% *}"
done
