"""Text of a run, made safe for where it goes: one function for each target.

`visible` is for a terminal, a page and a figure; a page's template escapes what it returns. JSON
needs none: its strings hold no control characters.
"""

from __future__ import annotations

import re

_FORMULA = re.compile(r"^\s*[=+\-@＝＋－＠]|^[\t\r\n]")
_MARKDOWN = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_[]|~$"}
    | {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;"}
)
# What begins a heading, a list or a rule; not the sign or the digits of a number.
_BLOCK = re.compile(r"^(?:#|[+-](?=\s|$)|[=-]{2}|=$|\d+(?=[.)](?:\s|$)))")


def printable(text: str) -> str:
    """The text with bytes that are not UTF-8 shown as �."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def visible(text: str) -> str:
    """The text with non-printable characters, except line breaks and tabs, replaced by �: they
    could move a terminal's cursor, or be invalid HTML."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def visible_line(text: str) -> str:
    """The visible text on one line."""
    return visible(" ".join(text.split()))


def markdown(text: str) -> str:
    """The visible text on one line of Markdown, where it is neither HTML, nor a link, nor the end
    of a table's cell."""
    line = visible_line(text).translate(_MARKDOWN)
    line = line.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")
    return _BLOCK.sub(lambda found: f"&#{ord(found[0][0])};{found[0][1:]}", line)


def csv_cell(text: str) -> str:
    """The visible text, which no spreadsheet takes for a formula."""
    return f"'{visible(text)}" if _FORMULA.match(text) else visible(text)


def duration(seconds: float) -> str:
    """In the unit in which it is a number from 1 on."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
