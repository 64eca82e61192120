"""Small trainings on documents."""

from __future__ import annotations

from tests.small_runs import GPT_SMALL

# The corpus of the small runs, a document a line: some seventy bytes each.
LINES = ("data._target_=harness.data.documents.Lines", "+data.shuffle=0")
GPT_OF_DOCUMENTS = (*GPT_SMALL, *LINES, "model.block_size=32", "train.seq_len=32")
