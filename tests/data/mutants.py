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
