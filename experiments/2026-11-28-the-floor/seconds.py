"""CPU seconds that counting and scoring take, for each order: python seconds.py TEXT"""

from __future__ import annotations

import sys
from pathlib import Path
from time import process_time

import numpy as np
import torch

from harness.compute.device import Compute
from harness.evaluation.score import token_nats
from zoo.ngram import NGram

text = np.frombuffer(Path(sys.argv[1]).read_bytes(), dtype=np.uint8)
found, ids = np.unique(text, return_inverse=True)
train, val, _ = np.split(ids, [892_315, 1_003_854])
cpu = Compute(torch.device("cpu"), "fp32")
print("order  counting  scoring of validation")
for order in range(1, 9):
    model = NGram(len(found), order).eval()
    started = process_time()
    model.fit(torch.from_numpy(train))
    counted = process_time()
    token_nats(model, val, cpu)
    print(f"{order:5}  {counted - started:8.2f}  {process_time() - counted:8.2f}")
