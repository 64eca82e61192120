#!/bin/sh
# What WaveNet's gates, skip connections and dilation do: each taken back to what is simpler, alone and with the others.
#   sh sweeps/wavenet_parts.sh [FOLDER]         eight variants, three seeds each; goes on where it was stopped
# A gate without its tanh (Dauphin et al. 2017), the mean of the skip connections in place of their sum, and no
# dilation, with which the receptive field falls from 64 tokens to 12. Planned for a quarter of an hour on two idle
# cores. Without a search: rate and initialization are those that one chose for WaveNet
# (experiments/2026-11-28-searched).
exec python -m harness.ablate \
    'model=wavenet optimizer.lr=3.3e-3 init=xavier optimizer.weight_decay=0 train.steps=400 eval.every=400 eval.sample_tokens=0 data.split=[0.9,0.05,0.05]' \
    model.gate=linear model.skips=mean 'model.dilations=[1,1,1,1,1]' \
    --seeds 3 --workers 2 --folder "${1:-runs/wavenet_parts}"
