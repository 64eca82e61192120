"""Damaged files, for Hypothesis to draw: pieces cut, repeated or replaced, and values that no run
writes at any place of a JSON or YAML document."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis.strategies as st
import yaml

# What has been trouble somewhere: numbers, nesting, control characters, YAML's tags and aliases.
TOKENS = (
    *(b"NaN", b"-Infinity", b"1e999", b"-1", b"4000000000", b"9" * 5000, b"18446744073709551616"),
    *(b"null", b"true", b"[]", b"{}", b'""', b"[" * 100_000, b'{"a":' * 50_000, b"\n", b"\r"),
    *(b"\0", b"\x1b[31m", b"\xff\xfe", b"\xed\xa0\x80", b"&a [*a]", b"!!python/object:os.x"),
    *(b"${oc.env:HOME}", b"=== step 3 ===\n", b"../../x", b"%s%n", b"\xe2\x80\xae"),
)
NUMBERS = (
    st.integers()
    | st.sampled_from([0, -1, 2**31, 2**62, 2**63, 2**64, 10**9, 10**18, 10**400])
    | st.floats()
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | st.sampled_from(["", "x" * 9999]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@st.composite
def spliced(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with a piece replaced by a token, any bytes, nothing, or itself several times."""
    start = draw(st.integers(0, len(content)))
    length = draw(st.sampled_from([0, 1, 2, 8, 64, len(content)]))
    stop = min(len(content), start + length)
    piece = content[start:stop]
    new = draw(
        st.sampled_from(TOKENS)
        | st.binary(max_size=12)
        | st.sampled_from([b"", piece * 2, piece[:1000] * 300])
    )
    return content[:start] + new + content[stop:]


@st.composite
def with_other_values(draw: st.DrawFn, document: Any, times: int = 2) -> Any:
    """A document with values put in the place of others, or gone."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, times))):
        places = list(_places(document))
        if not places:
            break
        node, key = draw(st.sampled_from(range(len(places))).map(places.__getitem__))
        if draw(st.booleans()) or isinstance(node, list):
            node[key] = draw(VALUES)
        else:
            del node[key]
    return document


def damaged_json(content: bytes) -> st.SearchStrategy[bytes]:
    return spliced(content) | _documents(json.loads(content), json.dumps)


def damaged_yaml(content: bytes) -> st.SearchStrategy[bytes]:
    return spliced(content) | _documents(yaml.safe_load(content), yaml.safe_dump)


def damaged_lines(content: bytes) -> st.SearchStrategy[bytes]:
    """Of lines of JSON: one is changed."""
    lines = content.splitlines(keepends=True)
    return spliced(content) | st.integers(0, len(lines) - 1).flatmap(
        lambda at: damaged_json(lines[at]).map(
            lambda line: b"".join([*lines[:at], line.rstrip(b"\n") + b"\n", *lines[at + 1 :]])
        )
    )


def _documents(document: Any, dump: Callable[[Any], str]) -> st.SearchStrategy[bytes]:
    return with_other_values(document).map(lambda value: dump(value).encode(errors="replace"))


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])
