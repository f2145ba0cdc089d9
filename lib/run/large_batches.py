"""The page on large batches: tables and figures of the benchmarks `contrastive` and `gradcache`.

``python tests/benchmarks/collect.py contrastive gradcache`` measures; ``python -m lib.run.large_batches`` then keeps
the numbers (`data/benchmarks`) and draws the figures; tables and sentences are generated from the numbers by a sync.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from lib import catalogue, plots
from lib.run.files import write_atomically
from lib.run.pages.markup import escape, raw, table

OURS, PLAIN = "ours", "plain"
NAMES = {
    OURS: "this library",
    PLAIN: "plain formula",
    "compiled": "plain formula, compiled",
    "products": "matrix products alone",
    "metric-learning": "pytorch-metric-learning",
    "lightly": "lightly",
    "info-nce-pytorch": "info-nce-pytorch",
}
LOOKS = {OURS: (plots.METHOD, "o"), PLAIN: (plots.BASELINE, "s"), "products": ("#555555", None)}


def source(name: str = "contrastive") -> Path:
    """The numbers of a benchmark that the page shows."""
    return catalogue.root() / "data" / "benchmarks" / f"{name}.json"


def figures() -> Path:
    """Where the figures are."""
    return catalogue.root() / "book" / "_static" / "benchmarks"


@cache
def measured() -> dict[tuple[str, int, str], dict[str, Any]]:
    """(loss, N, who) -> row."""
    rows = json.loads(source().read_text(encoding="utf-8"))["rows"]
    return {(row["loss"], row["N"], row["who"]): row for row in rows}


def cells() -> tuple[list[str], list[int]]:
    """The losses and the sizes, in the order in which they were measured."""
    return list(dict.fromkeys(key[0] for key in measured())), sorted({key[1] for key in measured()})


def _ratio(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row.get("seconds") is None:
        return "no memory"
    return f"{row['times_ours']:.1f} ×"


def losses_table() -> str:
    """How many times longer the plain formula takes, and the memory of both, for every loss and size."""
    losses, sizes = cells()
    rows = []
    for loss in losses:
        for who in dict.fromkeys(key[2] for key in measured() if key[0] == loss and key[2] not in (OURS, "products")):
            found = [measured().get((loss, size, who)) for size in sizes]
            rows.append([escape(loss), escape(NAMES[who]), *map(_ratio, found)])
    return table("companion-table", ["Loss", "Compared with", *(f"N = {size:,}" for size in sizes)], rows)


def needs_table() -> str:
    """Seconds and megabytes of a step of this library."""
    losses, sizes = cells()
    rows = []
    for loss in losses:
        found = [measured().get((loss, size, OURS)) for size in sizes]
        shown = ["" if row is None else f"{row['seconds']:.3g} s<br>{row['memory_mb']:.0f} MB" for row in found]
        rows.append([escape(loss), *shown])
    return table("companion-table", ["Loss", *(f"N = {size:,}" for size in sizes)], rows)


def page() -> str:
    """The generated part of the page."""
    machine = json.loads(source().read_text(encoding="utf-8"))["machine"]
    largest = max(size for loss, size, who in measured() if (loss, who) == ("NT-Xent", OURS))
    step = measured()["NT-Xent", largest, OURS]
    products = measured()["NT-Xent", largest, "products"]
    bound = step["seconds"] / products["seconds"]
    return "\n".join(
        [
            f"A step of NT-Xent on {largest:,} vectors takes {step['seconds']:.0f} seconds on one core and "
            f"{step['memory_mb']:.0f} MB beyond the vectors themselves: {bound:.1f} times as long as its three matrix "
            "products alone, streamed in the same way (each was measured once at this size: a fifth either way is "
            "noise).\n",
            f"What a step needs, forward and backward, 128 dimensions, float32, one core ({escape(machine)}):\n",
            raw(needs_table()),
            "\nHow many times longer others take for the same value and gradient (medians of one run; “no memory”: "
            "more than 10 GB; an empty field was not tried):\n",
            raw(losses_table()),
        ]
    )


def cached() -> str:
    """What a step with a real encoder needs, with GradCache and in one piece."""
    found = {
        (row["pairs"], row["who"]): row for row in json.loads(source("gradcache").read_text(encoding="utf-8"))["rows"]
    }
    rows = []
    for pairs in sorted({key[0] for key in found}):
        shown = [found[pairs, who] for who in ("gradcache", "one piece")]
        rows.append([f"{pairs:,}", *map(_needs, shown)])
    head = ["Pairs of sentences", "GradCache, chunks of 256", "in one piece"]
    return "\n".join(
        [
            "Measured with two transformer layers of width 128 on sentences of 16 words, one core:\n",
            raw(table("companion-table", head, rows)),
        ]
    )


def _needs(row: dict[str, Any]) -> str:
    if row["seconds"] is None:
        return "more than 10 GB"
    return f"{row['seconds']:.3g} s, {row['memory_mb']:,.0f} MB"


def draw() -> None:
    """Time and memory of NT-Xent against the number of vectors."""
    import matplotlib.pyplot as plt

    plots.use_style()
    fig, axes = plots.figure(1, 2, height=3.4)
    candidates = list(dict.fromkeys(key[2] for key in measured() if key[0] == "NT-Xent"))
    for ax, field, label in zip(axes, ("seconds", "memory_mb"), ("seconds a step", "peak memory, MB"), strict=True):
        for index, who in enumerate(candidates):
            rows = [row for (loss, _, name), row in measured().items() if (loss, name) == ("NT-Xent", who)]
            points = [(row["N"], row[field]) for row in rows if isinstance(row.get(field), (int, float))]
            color, marker = LOOKS.get(who, (plots.color(index), "^"))
            if not (who == "products" and field == "memory_mb"):
                style = "--" if who == "products" else "-"
                ax.plot(*zip(*points, strict=True), style, color=color, marker=marker, label=NAMES[who])
        ax.set(xscale="log", yscale="log", xlabel="embedding vectors N", ylabel=label)
    axes[0].legend(fontsize=7)
    figures().mkdir(parents=True, exist_ok=True)
    write_atomically(figures() / "nt-xent.png", plots.png(fig))
    plt.close(fig)


def main() -> None:
    """Keep the newest measurements and draw them."""
    for name in ("contrastive", "gradcache"):
        newest = catalogue.root() / "runs" / "bench" / f"{name}.json"
        if newest.exists():
            source(name).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(source(name), newest.read_bytes())
        elif not source(name).exists():
            sys.exit(f"nothing measured: python tests/benchmarks/collect.py {name}")
    draw()


if __name__ == "__main__":
    main()
