"""Complete judgements of a model against itself under another name, each with a ledger of its own,
so that each is judged at the largest level, 0.025.

python experiments/2026-11-28-judge/against_itself.py FOLDER 40
"""

import collections
import json
import subprocess
import sys
from pathlib import Path

SMALL = (
    "train.steps=60 train.batch_size=4 eval.every=60 eval.sample_tokens=0 observe=off "
    "data=tiny_shakespeare data.split=[0.9,0.01,0.09]"
).split()
CANDIDATE, BASELINE = "model=mlp names.model=other", "mlp"

folder, count = Path(sys.argv[1]), int(sys.argv[2])
verdicts, pairs = collections.Counter(), []
for number in range(1, count + 1):
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "harness.judge", CANDIDATE, BASELINE, *SMALL),
            *("--margin", "0.1", "--seeds", "20", "--json"),
            *("--ledger", str(folder / str(number))),
        ],
        capture_output=True,
        text=True,
    )
    if ended.returncode not in (0, 3, 4, 5):
        sys.exit(ended.stderr)
    found = json.loads(ended.stdout)
    verdicts[found["verdict"]] += 1
    pairs.append(found["pairs"])
    print(number, found["verdict"], found["pairs"], found["difference"], flush=True)
print(dict(verdicts), "pairs", sorted(pairs))
