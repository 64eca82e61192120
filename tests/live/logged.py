"""What a run that the page shows has logged."""

from __future__ import annotations

from typing import Any

from tests.live.live_server import row


def rows(count: int, loss: float) -> list[dict[str, Any]]:
    return [
        row(step, **{"train/loss": loss + 2 / (step + 1), "lr": 1e-3})
        | ({"val/bits_per_byte": loss + 3 / (step + 1)} if step % 20 == 0 else {})
        for step in range(count + 1)
    ]


SCORE = {"nats_per_token": 1.0, "bits_per_byte": 2.0, "bytes": 9, "stride": 1}
