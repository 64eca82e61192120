"""A picture of the packages and their imports, as SVG.

Each package stands above what it imports. The rows, their order and the bends of long arrows follow
Sugiyama, Tagawa & Toda 1981 ("Methods for Visual Understanding of Hierarchical System Structures").

python -m docs.packages_picture > packages.svg
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from html import escape

from docs.import_graph import components, package_graph

BOX_HEIGHT, LINE_HEIGHT, ROW_GAP, COLUMN_GAP, CHARACTER = 34, 17, 46, 22, 8.0
STYLE = (
    ".packages rect{fill:var(--md-code-bg-color,#f5f5f5);stroke:var(--md-accent-fg-color,#526cfe)}"
    ".packages text{fill:var(--md-default-fg-color,#222);font:13px ui-monospace,monospace;"
    "text-anchor:middle}"
    ".packages path{fill:none;stroke:var(--md-default-fg-color--light,#777);stroke-width:1.3}"
    ".packages marker path{fill:var(--md-default-fg-color--light,#777);stroke:none}"
)

Box = tuple[str, ...]  # packages that import one another share a box; () is a bend of an arrow


def picture(packages: Mapping[str, Iterable[str]]) -> str:
    """The packages as SVG. An arrow that follows from others is left out."""
    arrows = _without_shortcuts(_boxes(packages))
    rows, links = _rows(arrows)
    _untangle(rows, links)
    places, width, height = _places(rows)
    drawn = [
        '<svg xmlns="http://www.w3.org/2000/svg" class="packages" role="img" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        'aria-label="Packages and what they import">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    starts = [key for key in links if key[0]]
    drawn += [_arrow(first, second, links, places) for first in starts for second in links[first]]
    drawn += [_box(key[0], places[key]) for key in places if key[0]]
    return "\n".join([*drawn, "</svg>"])


Key = tuple[Box, int]  # a box or a bend, and a number that tells bends apart
Links = dict[Key, list[Key]]
Place = tuple[float, float, float, float]  # the middle's x, the top's y, width, height


def _boxes(packages: Mapping[str, Iterable[str]]) -> dict[Box, set[Box]]:
    box_of = {name: tuple(group) for group in components(packages) for name in group}
    arrows: dict[Box, set[Box]] = {box: set() for box in box_of.values()}
    for name, targets in packages.items():
        arrows[box_of[name]] |= {box_of[target] for target in targets} - {box_of[name]}
    return arrows


def _without_shortcuts(arrows: dict[Box, set[Box]]) -> dict[Box, set[Box]]:
    """The transitive reduction: a → c goes where a → b → c says it."""

    def below(box: Box) -> set[Box]:
        return set().union(*({target} | below(target) for target in arrows[box]))

    return {
        box: {t for t in targets if not any(t in below(other) for other in targets)}
        for box, targets in arrows.items()
    }


def _rows(arrows: dict[Box, set[Box]]) -> tuple[list[list[Key]], Links]:
    """The boxes from the top row down; an arrow over several rows bends once in each between."""

    def depth(box: Box) -> int:
        return 1 + max((depth(target) for target in arrows[box]), default=-1)

    rows: list[list[Key]] = [[] for _ in range(1 + max(map(depth, arrows), default=0))]
    links: Links = {}
    for box in sorted(arrows):
        rows[depth(box)].append((box, 0))
    bends = 0
    for box, targets in arrows.items():
        links.setdefault((box, 0), [])
        for target in sorted(targets):
            last: Key = (box, 0)
            for row in range(depth(box) - 1, depth(target), -1):
                bends += 1
                rows[row].append(((), bends))
                links.setdefault(last, []).append(((), bends))
                last = ((), bends)
            links.setdefault(last, []).append((target, 0))
    return rows[::-1], links


def _untangle(rows: list[list[Key]], links: Links) -> None:
    """Order each row by the mean place of its neighbours above, then below, a few times."""
    above: Links = {}
    for key, targets in links.items():
        for target in targets:
            above.setdefault(target, []).append(key)

    def sort(row: list[Key], other: list[Key], neighbours: Links) -> None:
        at = {key: index / max(1, len(other) - 1) for index, key in enumerate(other)}
        own = {key: index / max(1, len(row) - 1) for index, key in enumerate(row)}

        def middle(key: Key) -> float:
            near = [at[each] for each in neighbours.get(key, []) if each in at]
            return sum(near) / len(near) if near else own[key]

        row.sort(key=middle)

    for _ in range(8):
        for upper, lower in itertools.pairwise(rows):
            sort(lower, upper, above)
        for upper, lower in zip(rows[-2::-1], rows[:0:-1], strict=True):
            sort(upper, lower, links)


def _places(rows: list[list[Key]]) -> tuple[dict[Key, Place], float, float]:
    def size(key: Key) -> tuple[float, float]:
        if not key[0]:
            return 8, BOX_HEIGHT
        longest = max(map(len, key[0]))
        return longest * CHARACTER + 24, BOX_HEIGHT + LINE_HEIGHT * (len(key[0]) - 1)

    widths = [sum(size(key)[0] + COLUMN_GAP for key in row) - COLUMN_GAP for row in rows]
    width, y, places = max(widths, default=0) + 8, 4.0, dict[Key, Place]()
    for row, row_width in zip(rows, widths, strict=True):
        spread = (width - 8 - row_width) / (len(row) + 1)
        x, tallest = 4 + spread, max(size(key)[1] for key in row)
        for key in row:
            wide, high = size(key)
            places[key] = (x + wide / 2, y + (tallest - high) / 2, wide, high)
            x += wide + COLUMN_GAP + spread
        y += tallest + ROW_GAP
    return places, width, y - ROW_GAP + 4


def _arrow(first: Key, second: Key, links: Links, places: dict[Key, Place]) -> str:
    """From the bottom of one box, through its bends, to the top of another."""
    x, y, _, high = places[first]
    y += high
    path = f"M{x:.1f} {y:.1f}"
    while True:
        to_x, top, _, high = places[second]
        middle = (y + top) / 2
        path += f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {top:.1f}"
        if second[0]:
            return f'<path d="{path}" marker-end="url(#tip)"/>'
        path += f"V{top + high:.1f}"
        x, y, second = to_x, top + high, links[second][0]


def _box(names: Box, place: Place) -> str:
    x, y, wide, high = place
    lines = "".join(
        f'<text x="{x:.1f}" y="{y + 22 + LINE_HEIGHT * row:.1f}">{escape(name)}</text>'
        for row, name in enumerate(names)
    )
    left = x - wide / 2
    shape = f'<rect x="{left:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="5"/>'
    return shape + lines


if __name__ == "__main__":
    print(picture(package_graph()))
