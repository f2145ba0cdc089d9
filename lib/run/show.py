"""What the command line prints about papers and records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Aligned columns, the last one of any width."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([lines[0], "-" * min(len(lines[0]), 100), *lines[1:]])


def verdicts(record: Mapping[str, Any]) -> str:
    """The claims of a record with effect, interval, rule and verdict."""
    rows = []
    for name, entry in record["claims"].items():
        interval = "" if entry["low"] is None else f"[{entry['low']:.3g}, {entry['high']:.3g}]"
        rows.append((name, entry["verdict"], f"{entry['effect']:.3g}", interval, entry["threshold"]))
    return table(rows, ("claim", "verdict", "effect", "interval", "rule"))
