"""One style for all figures: colour-blind-safe, opaque (readable on a light and a dark page), small PNGs, alt text.

The palette is Okabe and Ito's (https://jfly.uni-koeln.de/color/); the method is always blue, its baseline orange.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from lib import stats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666")
METHOD, BASELINE, THIRD, FOURTH, FIFTH, SIXTH, NEUTRAL = PALETTE
DPI = 110
MAX_BYTES = 40_000
MIN_ALT = 20


def color(i: int) -> str:
    """The i-th colour of the palette, around again after the last."""
    return PALETTE[i % len(PALETTE)]


def use_style() -> None:
    """Set the style for all following figures (matplotlib's rcParams); figures are shown by `show` only."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from cycler import cycler

    mpl.rcdefaults()
    plt.ioff()
    mpl.rcParams.update(
        {
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.prop_cycle": cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.labelsize": 9,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E3E3E3",
            "grid.linewidth": 0.6,
            "font.size": 9,
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "lines.markersize": 4,
            "image.cmap": "viridis",
            "svg.hashsalt": "companion",
        }
    )


def figure(nrows: int = 1, ncols: int = 1, width: float = 7.0, height: float = 3.0, **kw: Any) -> tuple[Figure, Any]:
    """A white figure with a constrained layout.

    Args:
        nrows: rows of axes.
        ncols: columns of axes.
        width: of the whole figure, inches; 7 fills the text column.
        height: of the whole figure, inches.
        kw: for `matplotlib.pyplot.subplots`.

    Returns:
        The figure, and one axes or an array of them (as `subplots` gives).
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(nrows, ncols, figsize=(width, height), facecolor="white", layout="constrained", **kw)
    return fig, axes


def band(ax: Axes, x: ArrayLike, values: ArrayLike, label: str, color: str, marker: str | None = None) -> None:
    """Mean over seeds as a line with its 95 % bootstrap interval as a band.

    Args:
        ax: where to draw.
        x: shape (K,).
        values: shape (S, K), a row a seed.
        label: for the legend.
        color: from the palette.
        marker: e.g. "o" for a coarse grid.

    Raises:
        ValueError: shapes do not match, or a value is not finite.
    """
    grid, rows = np.asarray(x, float), np.asarray(values, float)
    if rows.ndim != 2 or grid.shape != rows.shape[1:]:
        raise ValueError(f"band: x (K,) and values (S, K), got {grid.shape} and {rows.shape}")
    ends = np.array([stats.bootstrap(column) for column in rows.T])
    ax.plot(grid, rows.mean(axis=0), color=color, label=label, marker=marker)
    ax.fill_between(grid, ends[:, 0], ends[:, 1], color=color, alpha=0.2, linewidth=0)


def paired(ax: Axes, method: ArrayLike, baseline: ArrayLike, labels: Sequence[str] = ("method", "baseline")) -> None:
    """Estimation plot: each seed's pair joined by a line, and beside it the mean difference with its 95 % interval.

    Differences have their own axis on the right, in the same unit, with zero at the baseline's mean.

    Args:
        ax: where to draw.
        method: shape (S,).
        baseline: shape (S,), the same seeds.
        labels: of method and baseline.

    Raises:
        ValueError: shapes differ, or a value is not finite.
    """
    effect = stats.paired_effect(method, baseline)
    ours, theirs = np.asarray(method, float), np.asarray(baseline, float)
    for a, b in zip(theirs, ours, strict=True):
        ax.plot([0, 1], [a, b], color="#B8B8B8", linewidth=0.8, zorder=1)
    ax.scatter(np.zeros_like(theirs), theirs, color=BASELINE, s=18, zorder=2)
    ax.scatter(np.ones_like(ours), ours, color=METHOD, s=18, zorder=2)
    zero = theirs.mean()
    ax.axhline(zero, color=BASELINE, linewidth=0.8, linestyle=":")
    ends = [[effect.mean - effect.low], [effect.high - effect.mean]]
    ax.errorbar([2], [zero + effect.mean], yerr=ends, fmt="D", color="black", capsize=3, markersize=4)
    ax.set_xticks([0, 1, 2], [labels[1], labels[0], "difference"])
    ax.set_xlim(-0.4, 2.5)
    right = ax.secondary_yaxis("right", functions=(lambda v: v - zero, lambda v: v + zero))
    right.set_ylabel("difference")


def png(fig: Figure) -> bytes:
    """The figure as a PNG of at most 40 KB: an adaptive palette, no metadata, the same bytes for the same figure.

    Raises:
        ValueError: larger than 40 KB even with 16 colours; draw less, or a smaller figure.
    """
    from PIL import Image

    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    image = Image.open(buffer).convert("RGB")
    for colors in (128, 64, 32, 16):
        small = image.quantize(colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        out = io.BytesIO()
        small.save(out, format="png", optimize=True)
        if out.tell() <= MAX_BYTES:
            return out.getvalue()
    raise ValueError(f"figure of {out.tell():,} bytes with 16 colours; at most {MAX_BYTES:,}: draw less or smaller")


def show(fig: Figure, alt: str) -> None:
    """Display a figure in the notebook with its alt text, and close it.

    Args:
        fig: from `figure`.
        alt: one or two sentences for readers who do not see it: what is drawn, and what it shows.

    Raises:
        ValueError: alt text shorter than 20 characters, or a PNG above 40 KB.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    alt = " ".join(alt.split())
    if len(alt) < MIN_ALT:
        raise ValueError(f"alt text of {len(alt)} characters; say in a sentence what is drawn and what it shows")
    try:
        bundle = {"image/png": base64.b64encode(png(fig)).decode(), "text/plain": alt}
        display(bundle, raw=True)  # type: ignore[no-untyped-call]
    finally:
        plt.close(fig)
