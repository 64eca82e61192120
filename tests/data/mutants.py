"""Planted errors in tasks and their scores: file, text, text put in its place, the tests that must
fail."""

from __future__ import annotations

SCORE, TASK = "harness/evaluation/score.py", "harness/data/skills/task.py"
OF_EXAMPLES = 'data/test_skills.py -k "pure_function or fillers"'
OF_RUNS = "training/test_skills.py -k only_answers"

OF_SKILLS = {
    "all of an example counts": (
        SCORE,
        "counted = nats if scored is None else nats[scored]",
        "counted = nats",
        OF_RUNS,
    ),
    "accuracy is of all that an example holds": (
        SCORE,
        "np.add.reduceat(self.hits & self.documents.scored,",
        "np.add.reduceat(self.hits,",
        OF_RUNS,
    ),
    "answers are scored one off": (
        TASK,
        "np.pad(self._scored_DN[first:last], ((0, 0), (0, 1)))",
        "np.pad(self._scored_DN[first:last], ((0, 0), (1, 0)))",
        OF_RUNS,
    ),
    "answers are trained one off": (
        TASK,
        "np.where(scored_RN, ids_RN, IGNORED)",
        "np.where(np.roll(scored_RN, 1, axis=1), ids_RN, IGNORED)",
        OF_EXAMPLES,
    ),
    "examples are the same at every step": (
        TASK,
        "Draws(seed, step, apart",
        "Draws(seed, 0, apart",
        OF_EXAMPLES,
    ),
    "fillers are keys": (
        "harness/data/skills/recall.py",
        "ids_RN = first_filler + draws.below(",
        "ids_RN = 0 * first_filler + draws.below(",
        OF_EXAMPLES,
    ),
}

LANE, ROWS = "harness/data/lane.py", "harness/training/streamed_rows.py"
OF_LANES, OF_ROWS = "data/test_stream.py", "training/test_streamed_rows.py"

OF_STREAMS = {
    "what is held out is trained on": (
        LANE,
        "if document.is_empty or digest in self.held_out:",
        "if document.is_empty:",
        f"{OF_LANES} -k held_out",
    ),
    "what is held out is trained on where it occurs again": (
        LANE,
        "digest in self.held_out:",
        "digest in self.held_out and shard < len(self.shards):",
        f"{OF_LANES} -k held_out",
    ),
    "a lane begins its document anew": (
        LANE,
        "replace(pending[0][0], token=skip)",
        "pending[0][0]",
        f"{OF_LANES} -k from_any_position",
    ),
    "a lane forgets what it counted": (
        LANE,
        "counts = {name: value for name, value in asdict(start).items() if name in COUNTS}",
        "counts = dict.fromkeys(COUNTS, 0)",
        f"{OF_LANES} -k from_any_position",
    ),
    "a shard that was changed is gone on with": (
        LANE,
        "if start.sha256 != chain.hex():",
        "if False:",
        f"{OF_LANES} -k changed",
    ),
    "a token between two rows is no target": (
        LANE,
        "self.rows * self.stride\n",
        "self.rows * self.stride + 1\n",
        f"{OF_LANES} -k once",
    ),
    "a stream begins anew when it is resumed": (
        ROWS,
        'self._rows = int(saved["rows"])',
        "self._rows = 0",
        f"{OF_ROWS} -k go_on",
    ),
    "the position is not in the checkpoint": (
        "harness/training/loop.py",
        "progress.stream = stream.state",
        "stream.state",
        f"{OF_ROWS} -k stopped",
    ),
    "lanes go on from the beginning": (
        ROWS,
        "Position(**self._starts[lane.number])",
        "lane.start",
        f"{OF_ROWS} -k stopped",
    ),
    "blocks are shuffled otherwise when they are resumed": (
        ROWS,
        "self._starts[lane.number]), first[lane.number])",
        "self._starts[lane.number]), 0)",
        f"{OF_ROWS} -k go_on",
    ),
    "every rank reads everything": (
        ROWS,
        "in context.processes.shard(lanes)",
        "in lanes",
        f"{OF_ROWS} -k disjoint",
    ),
    "ranks take the same rows of different lanes": (
        ROWS,
        "if lane in self._blocks:",
        "if True:\n                lane = min(self._blocks, default=lane)",
        f"{OF_ROWS} -k disjoint",
    ),
}
OF_STREAMS |= {
    "a damaged token shard is trained on": (
        "harness/data/token_shards.py",
        "if content is None or hashlib.sha256(content).hexdigest() != shard.sha256:",
        "if content is None:",
        "data/test_token_shards.py -k found_when",
    ),
    "what is held out is not known among token shards": (
        "harness/data/write_tokens.py",
        "document.replaced, document.digest)",
        "document.replaced, bytes(32))",
        "data/test_token_shards.py -k batches",
    ),
    "a damaged token shard is not written again": (
        "harness/data/write_tokens.py",
        "return done if same and whole else None",
        "return done if same else None",
        "data/test_token_shards.py -k again",
    ),
}

MIX, COPIED = "harness/data/mix.py", "harness/evaluation/without_copied.py"
OF_MIXES = {
    "a copied passage is looked for in validation, too": (
        COPIED,
        "min(train.stop, train.start + MOST_SEARCHED)",
        "dataset.parts[1].stop",
        "evaluation/test_without_copied.py -k validation",
    ),
    "of a copied passage the last bytes are left": (
        COPIED,
        "before[ends] == before[starts]",
        "np.append(found_in(content, dataset.text, train, LONG), [False] * LONG)[starts] == 0",
        "evaluation/test_without_copied.py -k first_byte",
    ),
    "the weights of a mix are ignored": (
        "harness/data/batches.py",
        "np.cumsum(documents.weights)[:-1]",
        "np.cumsum(np.full(len(documents), 1 / len(documents)))[:-1]",
        "data/test_mix.py -k weight",
    ),
    "rows of a mix are the same at every step": (
        "harness/data/batches.py",
        "np.split(_raw(seed, first, 2 * rows), 2, axis=1)",
        "np.split(_raw(seed, 0, 2 * rows)[[0] * STEPS_PER_DRAW], 2, axis=1)",
        "data/test_mix.py -k function",
    ),
    "a corpus of a mix has its test split in train": (
        MIX,
        "cuts = [split_points(text, split) for text in self.texts]",
        "cuts = [split_points(text, split)[::-1] for text in self.texts]",
        "data/test_mix.py -k itself",
    ),
    "texts of a mix are scored as one": (
        SCORE,
        "    if split.texts:\n        return _sum(\n            {",
        "    if False:\n        return _sum(\n            {",
        "training/test_mix.py -k alone",
    ),
    "tokens reach from one text of a mix into the next": (
        "harness/data/encoded.py",
        "for each in part.texts or (part,):",
        "for each in (part,):",
        "data/test_mix.py -k itself",
    ),
    "the score of a mix is the mean of its texts'": (
        SCORE,
        "nats=sum(score.nats for score in scores),",
        "nats=tokens * sum(score.nats / score.tokens for score in scores) / len(scores),",
        "training/test_mix.py -k alone",
    ),
}
