"""Complete judgements of a model against itself under another name, each with a ledger of its own,
so that each is judged at the largest level, 0.025.

python experiments/2026-11-28-judge/against_itself.py FOLDER FIRST LAST
"""

import json
import subprocess
import sys
from pathlib import Path

SMALL = [
    *("train.steps=100", "train.batch_size=4", "optimizer.lr=1e-1", "eval.every=100"),
    *("eval.sample_tokens=0", "observe=off", "data.split=[0.9,0.01,0.09]"),
]
CANDIDATE, BASELINE = "model=bigram names.model=other", "bigram"

folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for number in range(first, last + 1):
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "harness.judge", CANDIDATE, BASELINE, *SMALL),
            *("--margin", "0.05", "--json", "--ledger", str(folder / str(number))),
        ],
        capture_output=True,
        text=True,
    )
    if ended.returncode not in (0, 3, 4, 5):
        sys.exit(ended.stderr)
    found = json.loads(ended.stdout)
    print(number, found["verdict"], found["pairs"], found["difference"], flush=True)
