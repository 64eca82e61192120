"""A text as bytes that only the same model, on a machine that computes the same bits, can read.

The windows are those of the score. In each, the model reads the context that is known already, then
one token at a time through its cache: encoder and decoder make the same calls.
V vocabulary.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from harness.common.errors import RunFailure, UsageError
from harness.compression.range_coder import RangeDecoder, RangeEncoder
from harness.compute.device import Compute
from harness.data.encoded import UNICODE_SCALARS, Split
from harness.evaluation.score import resolve_stride, score_split, windows
from harness.runs.load import Run
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer, TokenizerError

MAGIC = b"zoo\x01"
FREQUENCIES = 2**32  # the sum of a distribution's integer frequencies
DIGEST_BYTES = 6
DIGESTED = ("model or tokenizer", "stride or precision", "torch or processor")
MOST_TOKENS = 2**20  # a byte: more is no text, but a forged header
OnToken = Callable[[], object]
Choose = Callable[[NDArray[np.int64]], int]
"""The next id, given where each id's interval begins, and the end: (V + 1,)."""


def compress(run: Run, content: bytes, on_token: OnToken) -> bytes:
    """Raises UsageError for content that the tokenizer can't give back."""
    ids, unknown = split_unknown(run.tokenizer, content.decode("utf-8", "surrogateescape"))
    header = Header(digests(run), len(ids), ids[0] if ids else 0, len(unknown), zlib.crc32(content))
    encoder = RangeEncoder()
    following = iter(ids[1:])

    def choose(begins_V: NDArray[np.int64]) -> int:
        id_ = next(following)
        start, end = map(int, begins_V[id_ : id_ + 2])
        encoder.encode(start, end - start, int(begins_V[-1]))
        on_token()
        return id_

    _code(run, ids[:1], len(ids), choose)
    for position, character in unknown:
        encoder.encode(position, 1, len(ids) + len(unknown))
        encoder.encode(_rank(character), 1, UNICODE_SCALARS)
    return header.pack() + encoder.finish()


def decompress(run: Run, packed: bytes, on_token: OnToken) -> bytes:
    """Raises UsageError for bytes that this run did not write, RunFailure for other damage."""
    header, rest = Header.unpack(packed)
    header.require(digests(run))
    decoder, again = RangeDecoder(rest), RangeEncoder()

    def choose(begins_V: NDArray[np.int64]) -> int:
        total = int(begins_V[-1])
        id_ = int(np.searchsorted(begins_V, decoder.target(total), "right")) - 1
        start, end = map(int, begins_V[id_ : id_ + 2])
        decoder.consume(start, end - start, total)
        again.encode(start, end - start, total)
        on_token()
        return id_

    def uniform(total: int) -> int:
        value = decoder.target(total)
        decoder.consume(value, 1, total)
        again.encode(value, 1, total)
        return value

    ids = [header.first][: header.tokens]
    _code(run, ids, header.tokens, choose)
    characters = list(run.tokenizer.decode(ids))
    total = header.tokens + header.unknown
    for _ in range(header.unknown):  # by ascending position
        characters.insert(uniform(total), _character(uniform(UNICODE_SCALARS)))
    content = "".join(characters).encode("utf-8", "surrogateescape")
    # Encoded again, because the last bits of a damaged file may lead to the same text.
    if zlib.crc32(content) != header.checksum or again.finish() != rest:
        raise RunFailure(
            "the text does not come back: the file is damaged, or this machine computes other bits "
            "than the one that compressed it"
        )
    return content


def nats_by_score(run: Run, content: bytes) -> float:
    """What the exact score of the content by itself says that it costs, as of a split."""
    ids, unknown = split_unknown(run.tokenizer, content.decode("utf-8", "surrogateescape"))
    counts = Counter(character for _, character in unknown)
    split = Split(np.array(ids, dtype=np.int64), len(content), dict(counts))
    if len(ids) < 2:  # nothing to predict
        return split.unknown_nats if unknown else 0.0
    stride, batch_size = _stride(run), run.settings.eval.batch_size
    return score_split(run.model, split, run.tokenizer, run.compute, stride, batch_size).nats


def split_unknown(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, str]]]:
    """The ids of the known characters; positions, in `text`, and values of the unknown ones.

    Raises UsageError if the ids do not give the known characters back.
    """
    try:
        ids, counts = tokenizer.encode_known(text)
    except TokenizerError as error:
        raise UsageError(str(error)) from error
    unknown = [(at, character) for at, character in enumerate(text) if character in counts]
    known = "".join(character for character in text if character not in counts)
    if tokenizer.decode(ids) != known:
        raise UsageError("the tokenizer loses some of this text, so it could not come back")
    return ids.tolist(), unknown


def _code(run: Run, ids: list[int], tokens: int, choose: Choose) -> None:
    """Extend `ids`, the first token, to `tokens` ids, each chosen given those before it."""
    model, block_size = run.model, run.model.block_size
    targets = max(0, tokens - 1)
    plan = [(0, targets)]
    if block_size is not None:
        plan = windows(targets, block_size, _stride(run) or block_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order, whatever the machine's number of cores
    try:
        with torch.inference_mode(), run.compute.autocast():
            for start, new in plan:
                cache, inputs = model.init_cache(1), ids[start:]
                for _ in range(new):
                    features = model(_row(inputs, run.compute), cache, return_features=True)
                    ids.append(choose(_intervals(model, features[0, -1:])))
                    inputs = ids[-1:]
    finally:
        torch.set_num_threads(threads)


def _row(ids: list[int], compute: Compute) -> torch.Tensor:
    return torch.tensor([ids], device=compute.device)


def _intervals(model: LanguageModel, features_1C: torch.Tensor) -> NDArray[np.int64]:
    """Where each id's interval begins, and the end: (V + 1,). Every id has one."""
    probabilities_V = model.head(features_1C)[0].double().softmax(-1).cpu().numpy()
    if not np.isfinite(probabilities_V).all():
        raise RunFailure("NaN or infinite logits: this model can't compress")
    begins = np.zeros(len(probabilities_V) + 1, dtype=np.int64)
    sizes_V = (probabilities_V * (FREQUENCIES - len(probabilities_V))).astype(np.int64) + 1
    np.cumsum(sizes_V, out=begins[1:])
    return begins


def _stride(run: Run) -> int | None:
    if run.model.block_size is None:
        return None
    return resolve_stride(run.model.block_size, run.settings.eval.stride)


def _rank(character: str) -> int:
    """Among the code points that are not surrogates."""
    point = ord(character)
    return point if point < 0xD800 else point - 0x800


def _character(rank: int) -> str:
    return chr(rank if rank < 0xD800 else rank + 0x800)


def digests(run: Run) -> dict[str, bytes]:
    """What must be equal for the bits to be, by name."""
    weights = hashlib.sha256()
    for name, tensor in sorted(run.model.state_dict().items()):
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        weights.update(
            f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + raw.numpy().tobytes()
        )
    compute, machine = run.compute, run.compute.describe()
    parts = (
        (weights.hexdigest(), run.tokenizer.digest, run.settings.model),
        (_stride(run), compute.precision, compute.tf32, compute.matmul),
        (torch.__version__, machine["name"], torch.backends.cpu.get_cpu_capability()),
    )
    return {
        name: hashlib.sha256(repr(part).encode()).digest()[:DIGEST_BYTES]
        for name, part in zip(DIGESTED, parts, strict=True)
    }


@dataclass(frozen=True)
class Header:
    """digests: of what must be equal, by name. first: the first token. unknown: how many characters
    the vocabulary lacks. checksum: CRC-32 of the content."""

    digests: dict[str, bytes]
    tokens: int
    first: int
    unknown: int
    checksum: int

    def pack(self) -> bytes:
        numbers = b"".join(map(_pack_number, (self.tokens, self.first, self.unknown)))
        return MAGIC + b"".join(self.digests.values()) + self.checksum.to_bytes(4) + numbers

    @classmethod
    def unpack(cls, packed: bytes) -> tuple[Header, bytes]:
        """The header and what follows it."""
        at = len(MAGIC) + len(DIGESTED) * DIGEST_BYTES + 4
        if packed[: len(MAGIC)] != MAGIC or len(packed) < at + 3:
            raise UsageError("this is no file that harness.compress wrote")
        found = {
            name: packed[len(MAGIC) + n * DIGEST_BYTES :][:DIGEST_BYTES]
            for n, name in enumerate(DIGESTED)
        }
        rest = iter(packed[at:])
        tokens, first, unknown = (_unpack_number(rest) for _ in range(3))
        if max(tokens, unknown) > MOST_TOKENS * len(packed):
            raise UsageError(f"damaged: {len(packed)} bytes can't hold {tokens + unknown} tokens")
        checksum = int.from_bytes(packed[at - 4 : at])
        return cls(found, tokens, first, unknown, checksum), bytes(rest)

    def require(self, own: dict[str, bytes]) -> None:
        """Raises UsageError naming what differs."""
        other = [name for name, digest in own.items() if self.digests[name] != digest]
        if other:
            raise UsageError(
                f"this file was compressed with another {', another '.join(other)}: "
                "the same bits are needed to read it"
            )


def _pack_number(value: int) -> bytes:
    """7 bits a byte, the lowest first; the last byte has no high bit."""
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _unpack_number(content: Iterator[int]) -> int:
    value = shift = 0
    for byte in content:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128 or shift > 63:
            break
    return value
