"""The part of all runs that one answer holds: filtered, sorted, and never more than MOST_LISTED."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Card = dict[str, Any]

MOST_LISTED = 200
MOST_FOLLOWED = 28  # as many as the page can draw
FEWEST_FOLLOWED = 6
STATUS_WORDS = {
    "running": "training",
    "finished": "finished",
    "stopped": "stopped",
    "failed": "failed",
    "non_finite": "NaN or infinite",
    "damaged": "damaged",
    "lost": "ended without a word",
    "silent": "silent",
}
_FIRST = {"running": 0, "silent": 1}


def _title(card: Card) -> str:
    seed = "" if card["seed"] is None else f" · s{card['seed']}"
    return f"{card['model']} · {card['tokenizer']}{seed}"


def _rank(card: Card) -> int:
    return _FIRST.get(card["status"], 2)


SORTS: dict[str, Callable[[Card], Any]] = {
    "run": lambda card: _title(card).casefold(),
    "status": lambda card: (_rank(card), card["status"]),
    "val": lambda card: card["val"],
    "test": lambda card: card["test"],
    "steps": lambda card: card["step"],
    "parameters": lambda card: card["parameters"],
    "training": lambda card: card["seconds"],
    "speed": lambda card: card["tokens_per_second"],
    "begun": lambda card: card["begun"],
}


def listing(
    cards: Iterable[Card], words: Sequence[str], sort: str | None, up: bool, wanted: set[str]
) -> dict[str, Any]:
    """What the page's list needs: the cards of `listed` (ids, in order), of `followed` (those that
    train, then the newest) and of the ids `wanted`; `matching`, how many runs have all `words`; how
    many runs have each status."""
    usual = sorted(cards, key=lambda card: (_rank(card), -card["begun"]))
    matching = [card for card in usual if _matches(card, words)] if words else usual
    if sort is not None:
        key = SORTS[sort]
        known = [card for card in matching if key(card) is not None]
        unknown = [card for card in matching if key(card) is None]
        matching = [*sorted(known, key=key, reverse=not up), *unknown]
    counts = Counter(card["status"] for card in usual)
    listed = matching[:MOST_LISTED]
    followed = usual[: max(FEWEST_FOLLOWED, min(MOST_FOLLOWED, counts["running"]))]
    others = [card for card in usual if card["id"] in wanted]
    return {
        "runs": list({card["id"]: card for card in (*listed, *followed, *others)}.values()),
        "listed": [card["id"] for card in listed],
        "followed": [card["id"] for card in followed],
        "matching": len(matching),
        "counts": counts,
    }


def _matches(card: Card, words: Sequence[str]) -> bool:
    status = f"{card['status']} {STATUS_WORDS[card['status']]}"
    text = f"{_title(card)} {card['data']} {status} {card['folder']}".casefold()
    return all(word in text for word in words)
