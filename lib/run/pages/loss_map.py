"""The map of how losses contain each other (`lib.losses.relations`): a drawing for the eye, a table for everyone."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lib import catalogue
from lib.run.pages.markup import Cell, escape, raw, table

WIDTH, HEIGHT = 760, 640
CENTRE = "Cross-entropy"


@dataclass(frozen=True)
class Edge:
    """From the general loss to its special case."""

    general: str
    special: str
    when: str


def edges() -> list[Edge]:
    """The relations, read from the source: a build of the book need not import torch."""
    tree = ast.parse((catalogue.root() / "lib" / "losses" / "relations.py").read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Relation":
            general, special, when = (CENTRE if isinstance(one, ast.Name) else one.value for one in node.args[:3])  # type: ignore[attr-defined]
            found.append(Edge(str(general), str(special), str(when)))
    return found


def page() -> str:
    """Drawing and table."""
    found = edges()
    rows: list[list[Cell]] = [[escape(one.general), escape(one.special), escape(one.when)] for one in found]
    return "\n".join(
        [
            "An arrow leads from a loss to one that it contains, and its label says where. Each arrow is an identity "
            "of values and gradients that `tests/losses/test_relations.py` evaluates.\n",
            raw(drawing(found)),
            "````{dropdown} The same as a table",
            raw(table("companion-table", ["Loss", "contains", "where"], rows)),
            "````\n",
        ]
    )


def places(names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Cross-entropy in the middle, the others on an ellipse in their order."""
    outer = [name for name in names if name != CENTRE]
    found = {CENTRE: (WIDTH / 2, HEIGHT / 2)}
    for index, name in enumerate(outer):
        angle = 2 * math.pi * index / len(outer) - math.pi / 2
        angle -= 0.2 * math.sin(2 * angle)  # boxes are wide: more room between them above and below
        found[name] = (WIDTH / 2 + 0.4 * WIDTH * math.cos(angle), HEIGHT / 2 + 0.43 * HEIGHT * math.sin(angle))
    return found


def drawing(found: Sequence[Edge]) -> str:
    """SVG in the colours of the page."""
    at = places(list(dict.fromkeys(name for one in found for name in (one.general, one.special))))
    lines = [
        f'<svg class="loss-map" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Map of losses; the table below says the same.">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="currentColor"/></marker></defs>',
    ]
    for one in found:
        (x1, y1), (x2, y2) = at[one.general], at[one.special]
        x1, y1, x2, y2 = *_edge_of(one.general, x1, y1, x2, y2), *_edge_of(one.special, x2, y2, x1, y1)
        lines.append(
            f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" '
            'stroke="currentColor" stroke-opacity="0.45" marker-end="url(#arrow)"/>'
        )
    for one in found:
        (x1, y1), (x2, y2) = at[one.general], at[one.special]
        share = 0.42 if one.special == CENTRE else 0.5
        x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
        lines.append(f'<text class="when" x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{escape(one.when)}</text>')
    for name, (x, y) in at.items():
        width = _width(name)
        lines.append(
            f'<rect x="{x - width / 2:.0f}" y="{y - 13:.0f}" width="{width:.0f}" height="26" rx="6"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{escape(name)}</text>'
        )
    return "\n".join([*lines, "</svg>"])


def _width(name: str) -> float:
    return 7.6 * len(name) + 14


def _edge_of(name: str, x: float, y: float, to_x: float, to_y: float) -> tuple[float, float]:
    """Where the line from the middle of a box to another place leaves the box."""
    dx, dy = to_x - x, to_y - y
    half = (_width(name) / 2 + 2, 15.0)
    share = min((half[i] / abs(d) for i, d in enumerate((dx, dy)) if d), default=0.0)
    return x + share * dx, y + share * dy
