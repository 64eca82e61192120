#!/bin/sh
# What each part of gpt_modern does: added to gpt alone, and left out of all of them.
#   sh sweeps/gpt_modern_parts.sh [FOLDER]      sixteen variants, three seeds each; goes on where it was stopped
# Planned for a quarter of an hour on two idle cores. Without a search: the rate lies between those that one chose for
# gpt (3.3e-3) and for gpt_modern (1e-3): experiments/2026-11-28-searched.
exec python -m harness.ablate \
    'model=gpt optimizer.lr=2e-3 train.steps=200 eval.every=200 eval.stride=64 eval.sample_tokens=0 data.split=[0.9,0.05,0.05]' \
    model.positions=rope model.norm=rms_norm model.bias=false model.tie_weights=false \
    model.activation=relu2 model.qk_norm=true model.logit_cap=15.0 \
    --seeds 3 --workers 2 --folder "${1:-runs/gpt_modern_parts}"
