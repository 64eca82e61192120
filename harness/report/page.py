"""The frame of every page: one HTML file that needs nothing else."""

from __future__ import annotations

import html

from harness.report.style import style_sheet


def document(title: str, body: str, style: str = "", script: str = "") -> str:
    """A whole page. body: HTML; style and script: what the page has beside the shared style."""
    code = f"\n<script>{script}</script>" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{style_sheet(style)}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>{code}\n</body>\n</html>\n"
    )


def section(title: str, *content: str) -> str:
    """A part of a page under its heading; all of it HTML."""
    return f"<section><h2>{title}</h2>\n{chr(10).join(content)}\n</section>"


def escape(text: str) -> str:
    """Any text as HTML that shows it; what can't be seen becomes \N{REPLACEMENT CHARACTER}."""
    shown = "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )
    return html.escape(shown, quote=True)
