"""The whole certificate: of a finished run, or of a model that nobody has trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from harness.common.errors import UsageError
from harness.compute.costs import parameters, step_flops
from harness.compute.device import Compute, make_deterministic
from harness.compute.meta import meta_model
from harness.config.model import build_model
from harness.config.settings import Settings
from harness.data.batches import row_shape
from harness.data.dataset import Dataset
from harness.data.encoded import Documents, Split
from harness.evaluation.score import (
    Score,
    ScoredWindow,
    resolve_stride,
    score_split,
    token_nats,
)
from harness.referee.calls import scoring_calls, training_call
from harness.referee.certify import (
    as_saved,
    bound_to,
    of_machine,
    outcome,
    scored_again,
    tokens_cover,
)
from harness.referee.decoder import Decoder, LocalDecoder
from harness.referee.interface import (
    cuts_disagree,
    field_differs,
    random_cuts,
    takes_more_than_block_size,
)
from harness.referee.perturbation import Trial, gradient_from_later, random_ids
from harness.referee.process import Source, fresh_decoder, learnt_again
from harness.referee.sequential import BOUND, scored_windows, window_nats
from harness.referee.state import MOST_BESIDE, buffer_values, hidden_values, model_digest
from harness.referee.weights import fill_zeros, randomize
from harness.runs.certificate import Binding, Certificate, Check
from harness.runs.load import Run, load_run
from harness.runs.summary import DEFINITION, ParameterCount, Summary, read_summary
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer, TokenizerError

SECONDS = 5.0  # of further cuts
DISTANCES = 256  # of the receptive field, unless complete
UNBOUNDED = 64  # distances that are tried where there is no bound
ROUNDED = 1e-5  # transformers' norms are in fp32 whatever the weights are
ROUNDED_SINGLE = 1e-4  # in fp32
VOCABULARY, TARGETS = 65, 2000  # of a model without a run
COUNTED = 20_000  # ids that a model is given to count


def verify_run(
    path: Path, *, complete: bool, device: str, trust: list[str], data_path: Path | None = None
) -> Certificate:
    """A run's certificate. data_path: see `Run.dataset`. Raises UsageError if the run can't be
    read, or has no score to certify."""
    run = load_run(path, "best", device, trust)
    summary = read_summary(path)
    dataset = run.dataset(data_path)
    split = dataset.final
    if split is None or summary.final is None:
        raise UsageError(f"{path} has no test score, so there is nothing to certify")
    make_deterministic()
    checks: list[Check] = []
    scored = None
    if run.settings.train.batch_norm == "batch":
        words = "evaluated with the statistics of the batch at hand"
        checks.append(Check(name="causality", result="failed", words=words))
    else:
        source = Source(path, "best", device, trust, run.compute.precision, torch.get_num_threads())
        reported = score_split(
            run.model, split, run.tokenizer, run.compute, run.settings.eval.stride,
            run.settings.eval.batch_size,
        )  # fmt: skip
        with fresh_decoder(source) as decoder:
            scored, check = scored_again(
                decoder, split, run.tokenizer, reported, run.compute.precision,
                complete=complete, seed=run.settings.seed,
            )  # fmt: skip
            checks += [check, reported_again(summary, reported, run.compute)]
            largest = max(split.alone, key=lambda name: len(split.alone[name].ids))
            if scored is not None:
                text, score = split.alone[largest], reported.texts.get(largest, reported)
                checks += alone(decoder, text, score, run.compute.precision)
        targets = len(split.alone[largest].ids) - 1
        time, _ = row_shape(dataset.row_documents, run.settings.train.seq_len)
        own = (run.model, run.settings, run.compute, targets, time, split.documents)
        checks += list(_trials(*own))
    checks += list(of_class(run.settings, run.tokenizer.vocab_size, complete))
    checks.append(state(run.model))
    checks += of_tokenizer(run, dataset)
    checks.append(counted(run.model, summary))
    checks += of_machine(run.settings, run.compute)
    if complete:  # torch's counter takes a second to load
        checks.append(flops(run.settings, run.model.vocab_size, summary, dataset.row_documents))
    return Certificate(
        made_by="verify",
        complete=scored is not None and scored.tokens == scored.predictions,
        bound_to=bound_to(run.settings, dataset, run.folder, run.model, summary.final),
        checks=checks,
        score=scored,
        parameters=parameters(run.model)["total"],
        state=buffer_values(run.model),
    )


def verify_model(settings: Settings, *, complete: bool, device: str) -> Certificate:
    """What can be said of a class without a run: with fresh weights, on random texts."""
    compute = Compute.choose(device, settings.precision)
    make_deterministic()
    compute.seed(settings.seed)
    model = build_model(settings, VOCABULARY)
    if model.fit is not None:
        model.fit(random_ids(1, COUNTED, VOCABULARY, 0)[0])
    fill_zeros(model.initialize(settings.init, settings.zero_residual)).to(compute.device)
    checks = list(_trials(model, settings, compute, TARGETS, settings.train.seq_len))
    ids = random_ids(1, TARGETS, VOCABULARY, 0)[0].numpy()
    split = Split(ids.astype(np.uint8), TARGETS, {})
    stride = resolve_stride(model.block_size, settings.eval.stride) if model.block_size else None
    nats = token_nats(model, ids, compute, stride, settings.eval.batch_size)
    reported = Score(float(nats.sum()), len(nats), TARGETS - 1, False, stride, 0, nats)
    decoder = LocalDecoder(model, compute)
    _, check = scored_again(
        decoder, split, _RandomText(), reported, compute.precision, complete=complete
    )
    checks += [check, *alone(decoder, split, reported, compute.precision)]
    checks += list(of_class(settings, VOCABULARY, complete))
    checks.append(state(model))
    bound = Binding(definition=DEFINITION, source=model_digest(model))
    return Certificate(
        made_by="verify", complete=complete, bound_to=bound, checks=checks,
        parameters=parameters(model)["total"], state=buffer_values(model),
    )  # fmt: skip


class _RandomText(Tokenizer):
    """Random ids, which stand for no text."""

    lossless = False
    pieces = (b"",) * VOCABULARY

    def encode(self, text: str) -> np.ndarray:
        raise TokenizerError("random ids stand for no text")


def reported_again(summary: Summary, found: Score, compute: Compute) -> Check:
    """The score of the summary is what the weights get."""
    reported = summary.final.nats_per_token if summary.final else None
    # Another machine adds up in another order.
    near = reported is not None and math.isclose(
        found.nats_per_token, reported, rel_tol=20 * BOUND[compute.precision]
    )
    words = f"{reported} nats a token in the summary, {found.nats_per_token} scored again"
    return outcome("reported", None if near else words, "the score is that of the weights")


def alone(decoder: Decoder, split: Split, reported: Score, precision: str) -> list[Check]:
    """A few texts by themselves, in text order, and again after another text."""
    ids = np.asarray(split.ids)
    block_size, vocab_size, _ = decoder.describe()
    targets = len(ids) - 1
    if split.documents is not None:
        plan = scored_windows(targets, block_size, reported.stride, split.documents, UNBOUNDED)
    else:
        plan = scored_windows(targets, block_size or UNBOUNDED, reported.stride, None)
    any_begins = block_size is not None or split.documents is not None
    chosen = sorted({0, len(plan) // 2, len(plan) - 1}) if any_begins else [0]
    length = max(plan[number].length for number in chosen)

    def score(window: ScoredWindow) -> np.ndarray:
        return np.concatenate([nats for _, nats in window_nats(decoder, ids, [window])])

    try:
        first = [score(plan[number]) for number in chosen]
        others = np.random.default_rng(0).integers(0, vocab_size, length + 1)
        list(window_nats(decoder, others, [ScoredWindow(0, length, length)]))
        again = [score(plan[number]) for number in chosen]
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return [Check(name="alone", result="failed", words=words)]
    off = 0.0
    for number, nats in zip(chosen, first, strict=True):
        end = plan[number].start + plan[number].length
        expected = reported.token_nats[end - plan[number].new : end]
        off = max(off, abs(float((nats - expected).mean())))
    few = 20 * BOUND[precision]  # of few tokens the mean varies more
    failure = f"a text by itself costs {off:.3g} nats a token more or less" if off > few else None
    remembered = any((a != b).any() for a, b in zip(first, again, strict=True))
    most = "at most " if split.documents is not None else ""
    words = f"{len(chosen)} texts of {most}{length} tokens, one row, in text order"
    return [
        outcome("alone", failure, words, sampled=True),
        outcome(
            "memory", "a text costs something else after another one" if remembered else None,
            "the same bits after another text", sampled=True,
        ),
    ]  # fmt: skip


def _trials(
    model: LanguageModel,
    settings: Settings,
    compute: Compute,
    targets: int,
    time: int,
    documents: Documents | None = None,
) -> Iterator[Check]:
    """targets: of the split that is scored. time: of a row in training."""
    vocab_size = model.vocab_size
    if vocab_size < 2:
        yield Check(name="causality", result="not applicable", words="there is one token only")
        return
    plan, batch_size = settings.train, settings.eval.batch_size
    stride = settings.eval.stride
    scoring = scoring_calls(model, compute, targets, batch_size, stride, documents=documents)
    trials = [Trial(call, vocab_size, exact=False) for call in scoring]
    what = ", and ".join(call.what for call in scoring)

    def first(check: Callable[[Trial], str | None]) -> str | None:
        return next(filter(None, map(check, trials)), None)

    words = first(lambda trial: trial.looks_ahead(SECONDS / len(trials)))
    yield outcome("causality", words, f"{what}: bit-equal, whatever comes after")
    if any(call.rows > 1 for call in scoring):
        words = first(lambda trial: next(filter(None, map(trial.rows, range(4))), None))
        yield outcome("rows", words, f"{what}: bit-equal, whatever the other rows hold")
    else:
        yield Check(name="rows", result="not applicable", words="scored in one row")
    yield outcome("repeated", first(Trial.memory), f"{what}: the same bits a second time")
    yield outcome("normalized", first(Trial.normalized), "finite, and a softmax adds up to 1")
    with torch.random.fork_rng([compute.device] if compute.device.type == "cuda" else []):
        training = training_call(model, compute, plan.batch_size, time)
        trial = Trial(training, vocab_size, exact=False)
        if trial.memory() is not None:
            words = "random beyond the seed"
            yield Check(name="training", result="not applicable", words=words)
        else:
            yield outcome("training", trial.looks_ahead(SECONDS), f"{training.what}: bit-equal")
    yield _gradient(model, compute, min(scoring[0].time, 256), vocab_size)


def _gradient(model: LanguageModel, compute: Compute, time: int, vocab_size: int) -> Check:
    ids_BT = random_ids(2, time, vocab_size, 2)
    cuts = sorted({0, time // 3, time // 2, time - 2}) if time > 1 else []
    try:
        for cut in cuts:
            if words := gradient_from_later(model, compute, ids_BT, cut):
                return Check(name="gradient", result="failed", words=words)
    except (LookupError, RuntimeError) as error:
        return Check(name="gradient", result="not applicable", words=str(error).split("\n")[0])
    return Check(
        name="gradient", result="sampled", words=f"zero by later tokens, at {len(cuts)} positions"
    )


def of_class(settings: Settings, vocab_size: int, complete: bool) -> Iterator[Check]:
    """What the interface promises, with fresh weights of unit gain; in float64, if the model has
    kernels for it."""
    counts = meta_model(settings).fit is not None
    # Of few ids, a short text has every context that a model could count.
    vocab_size = min(vocab_size, 3 if counts else 512)

    def fresh(unit_gain: bool = True) -> LanguageModel:
        torch.manual_seed(0)
        model = build_model(settings, vocab_size)
        if model.fit is not None:
            model.fit(random_ids(1, COUNTED, vocab_size, 0)[0])
        model = model.to(dtype)
        return (randomize(model) if unit_gain else fill_zeros(model)).eval()

    with torch.random.fork_rng([]):
        dtype, allowed, how = torch.float64, ROUNDED, ""
        model = fresh()
        time = min(64, model.block_size or 64)
        ids_BT = random_ids(3, time, vocab_size, 1)
        try:
            with torch.no_grad():
                model(ids_BT)
        except RuntimeError:  # some experts of transformers
            dtype, allowed, how = torch.float32, ROUNDED_SINGLE, ", in fp32"
            model = fresh()
        words = cuts_disagree(model, ids_BT, random_cuts(time), allowed)
        cut = f"cut anywhere, the cached outputs are those of one call{how}"
        yield outcome("cached", words, cut)
        yield outcome(
            "block_size", takes_more_than_block_size(model, vocab_size),
            f"refuses more than {model.block_size}" if model.block_size else "unbounded",
        )  # fmt: skip
        declared = model.receptive_field
        most = UNBOUNDED if declared is None else declared + 3
        most = most if complete else min(most, DISTANCES)
        words, tried = field_differs(model, vocab_size, most)
        if words is not None and words.startswith("blind"):
            # Unit gain makes some forget within a few tokens; they begin with less.
            words, tried = field_differs(fresh(unit_gain=False), vocab_size, most)
        shown = f"sees every token up to {tried if declared is None else min(tried, declared)} back"
        if holes := sorted(distance for distance in model.unseen if distance <= tried):
            shown += f", except {len(holes)} in holes that it declares, the first {holes[0]} back"
        if declared is not None and declared < tried:
            shown += f", and none beyond {declared}"
        sampled = declared is None or tried < min(declared, model.block_size or declared)
        yield outcome("receptive_field", words, shown, sampled)


def state(model: LanguageModel) -> Check:
    """Weights lie in parameters; what lies in buffers is counted; elsewhere there are settings."""
    beside = hidden_values(model)
    most = max(beside, key=lambda name: beside[name], default="")
    failure = None
    if beside and beside[most] > MOST_BESIDE:
        failure = f"{most} holds {beside[most]:,} values that are in no parameter and no buffer"
    return outcome("state", failure, f"{buffer_values(model):,} numbers in buffers")


def of_tokenizer(run: Run, dataset: Dataset) -> list[Check]:
    """Tokens and text of every split, and what the vocabulary was learnt from."""
    splits = (dataset.train, dataset.val, dataset.test)
    saved = as_saved(run.settings, run.tokenizer)
    found = [tokens_cover(dataset, split, saved) for split in splits if split is not None]
    checks = [next((check for check in found if check.result != "passed"), found[-1])]
    tokenizer = run.tokenizer.of_text
    if type(tokenizer).fit is Tokenizer.fit:
        if tokenizer.files():
            words = "a published vocabulary, of unknown origin"
            return [*checks, Check(name="vocabulary", result="unknown", words=words)]
        return [*checks, Check(name="vocabulary", result="not applicable", words="none is learnt")]
    if tokenizer.leaks:
        words = "learnt from the validation and test text, too"
        return [*checks, Check(name="vocabulary", result="failed", words=words)]
    train = dataset.text.strings(0, dataset.train.bytes)
    try:
        digest = learnt_again(run.folder.path, run.settings, train)
    except Exception as error:
        words = " ".join(str(error).split())
        return [*checks, Check(name="vocabulary", result="failed", words=words)]
    failure = None if digest == tokenizer.digest else "train alone gives another vocabulary"
    return [*checks, outcome("vocabulary", failure, "learnt again from train alone: the same")]


def counted(model: LanguageModel, summary: Summary) -> Check:
    """The parameters that the summary states."""
    found, stated = parameters(model), summary.parameters or ParameterCount()
    total, active = found["total"], found["active"]
    failure, words = None, f"{total:,} parameters"
    if stated.total != total:
        failure = f"{stated.total} parameters in the summary, {total} counted"
    elif stated.active not in (None, active):  # None: of an earlier version
        failure = f"{stated.active} active parameters in the summary, {active} counted"
    return outcome("costs", failure, words if active == total else f"{words}, {active:,} active")


def flops(
    settings: Settings, vocab_size: int, summary: Summary, row_documents: Documents | None = None
) -> Check:
    """The FLOPs of training that the summary states, counted again. A model states no formula for
    them, so there is nothing else to hold the count against."""
    plan, stated = settings.train, summary.flops_per_token
    time, targets = row_shape(row_documents, plan.seq_len, plan.trained)
    per_sequence = step_flops(lambda: build_model(settings, vocab_size), time, plan.trained)
    found = per_sequence / targets
    if stated is not None and math.isclose(found, stated):
        words = f"no formula; {found:,.0f} a token of training, counted by torch as in the summary"
        return Check(name="flops", result="not applicable", words=words)
    words = f"{stated} a token of training in the summary, {found:.0f} counted"
    if (summary.versions or {}).get("torch") != torch.__version__:
        words = f"{words} by another version of torch"
        return Check(name="flops", result="unknown", words=words)
    return Check(name="flops", result="failed", words=words)
