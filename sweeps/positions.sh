#!/bin/sh
# Do rotary positions lose to learned ones at this size, as arXiv 2512.20877 says of one seed and one rate for all?
#   sh sweeps/positions.sh [FOLDER]             the same search for both (seven trials), then five seeds each of what it chose
# Two layers of width 128 (0.4 M parameters), as there; 1.4 M characters, 1.6 epochs. 24 trainings, planned for 40 minutes on
# two cores; goes on where it was stopped. Validation alone is read. FOLDER/report.html has the effect with its interval.
exec python -m harness.ablate \
    'model=gpt model.n_layer=2 train.seq_len=128 train.batch_size=16 train.steps=700 eval.every=700 eval.sample_tokens=0' \
    model.positions=rope \
    --search --seeds 5 --workers 2 --folder "${1:-runs/positions}"
