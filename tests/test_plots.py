"""Figures: small, opaque, the same bytes each time, never without alt text; colours that people tell apart."""

import base64
import hashlib
import io
import itertools
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from lib import plots, stats

ALT = "A line that rises from zero to one over ten points."


@pytest.fixture(autouse=True)
def style():
    plots.use_style()
    yield
    plt.close("all")


def a_figure():
    fig, ax = plots.figure()
    rng = np.random.default_rng(0)
    plots.band(ax, np.arange(10), rng.normal(size=(5, 10)), "method", plots.METHOD)
    ax.legend()
    return fig


def opened(data):
    return Image.open(io.BytesIO(data))


def test_png_is_small_opaque_and_without_metadata():
    image = opened(plots.png(a_figure()))
    assert image.mode == "P"
    assert "transparency" not in image.info
    assert not {"Software", "Creation Time", "Author"} & set(image.info)
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert image.size == (770, 330)
    reference = plots.color(0).lstrip("#")
    target = np.array([int(reference[i : i + 2], 16) for i in (0, 2, 4)])
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.abs(pixels - target).max(axis=1) < 12).sum() > 200  # the line keeps its colour in the palette


def test_png_is_the_same_in_every_process():
    code = (
        "import hashlib, numpy as np; from lib import plots; plots.use_style(); fig, ax = plots.figure(); "
        "plots.band(ax, np.arange(10), np.random.default_rng(0).normal(size=(5, 10)), 'method', plots.METHOD); "
        "ax.legend(); print(hashlib.sha256(plots.png(fig)).hexdigest())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert elsewhere.strip() == hashlib.sha256(plots.png(a_figure())).hexdigest()


def test_png_with_much_detail_takes_fewer_colours_or_is_refused(monkeypatch):
    fig, ax = plots.figure()
    rng = np.random.default_rng(0)
    for _ in range(40):
        ax.scatter(rng.normal(size=60), rng.normal(size=60), s=6, color=rng.uniform(size=3))
    rich = plots.png(fig)
    assert 64 < len(opened(rich).getcolors()) <= 128
    assert len(rich) <= plots.MAX_BYTES == 40_000
    monkeypatch.setattr(plots, "MAX_BYTES", len(rich) - 1)
    poor = plots.png(fig)
    assert len(poor) < len(rich)
    assert len(opened(poor).getcolors()) <= 64
    monkeypatch.setattr(plots, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match="at most 10,000"):
        plots.png(fig)


def test_show_displays_png_with_alt_text_and_closes(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append((bundle, raw)))
    expected = plots.png(a_figure())
    plt.close("all")
    plots.show(a_figure(), f"  {ALT}\n  And more. ")
    ((bundle, raw),) = shown
    assert raw is True
    assert set(bundle) == {"image/png", "text/plain"}
    assert bundle["text/plain"] == f"{ALT} And more."
    assert base64.b64decode(bundle["image/png"]) == expected
    assert not plt.get_fignums()


@pytest.mark.parametrize("alt", ["", "   ", "A figure.", " \n".join("too short")])
def test_degenerate_alt_text_is_refused(alt):
    fig = a_figure()
    with pytest.raises(ValueError, match="alt text"):
        plots.show(fig, alt)
    assert plt.fignum_exists(fig.number)  # nothing was shown


def test_value_by_hand_band():
    fig, ax = plots.figure()
    values = np.random.default_rng(1).normal(size=(6, 4))
    plots.band(ax, [0, 1, 2, 3], values, "method", plots.METHOD, marker="o")
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_ydata(), values.mean(axis=0))
    assert (line.get_color(), line.get_label(), line.get_marker()) == (plots.METHOD, "method", "o")
    outline = ax.collections[0].get_paths()[0].vertices
    for position, column in enumerate(values.T):
        heights = outline[outline[:, 0] == position, 1]
        assert (heights.min(), heights.max()) == pytest.approx(stats.bootstrap(column))
    assert fig.axes == [ax]


def test_degenerate_band():
    _, ax = plots.figure()
    for x, values in (([0, 1], [[1, 2, 3]]), ([0, 1], [1, 2]), ([[0, 1]], [[1, 2]])):
        with pytest.raises(ValueError, match="band"):
            plots.band(ax, x, values, "method", plots.METHOD)
    with pytest.raises(ValueError, match="not finite"):
        plots.band(ax, [0, 1], [[1, np.nan]], "method", plots.METHOD)
    plots.band(ax, [0, 1], [[1, 2]], "one seed", plots.METHOD)


def test_value_by_hand_paired():
    fig, ax = plots.figure()
    method, baseline = np.array([0.9, 0.8, 0.95]), np.array([0.7, 0.75, 0.8])
    plots.paired(ax, method, baseline, ("ours", "theirs"))
    effect = stats.paired_effect(method, baseline)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["theirs", "ours", "difference"]
    lines = [line for line in ax.lines if list(line.get_xdata()) == [0, 1] and line.get_linestyle() == "-"]
    assert [list(line.get_ydata()) for line in lines] == [[0.7, 0.9], [0.75, 0.8], [0.8, 0.95]]
    (point,) = [line for line in ax.lines if list(line.get_xdata()) == [2] and line.get_marker() == "D"]
    assert point.get_ydata()[0] == pytest.approx(baseline.mean() + effect.mean)
    fig.canvas.draw()
    (right,) = ax.child_axes
    low, high = ax.get_ylim()
    assert right.get_ylim() == pytest.approx((low - baseline.mean(), high - baseline.mean()))
    with pytest.raises(ValueError, match="not paired"):
        plots.paired(ax, [1.0], [1.0, 2.0])


def test_palette_goes_round():
    assert plots.color(0) == plots.METHOD
    assert plots.color(len(plots.PALETTE) + 1) == plots.BASELINE


# Machado, Oliveira and Fernandes (2009), full dichromacy, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def lab(linear):
    """CIE L*a*b* of linear RGB (D65)."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = matrix @ linear / (matrix @ np.ones(3))
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def linear_rgb(name):
    rgb = np.array(mpl.colors.to_rgb(name))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_are_told_apart(deficiency):
    """The first four colours, and each from white, by a colour difference that nobody overlooks (delta E 76 > 15)."""
    seen = [lab(np.clip(DEFICIENCIES[deficiency] @ linear_rgb(name), 0, 1)) for name in (*plots.PALETTE[:4], "white")]
    for first, second in itertools.combinations(seen, 2):
        assert np.linalg.norm(first - second) > 15


def test_lines_stand_out_from_white():
    """WCAG's contrast for graphics: at least 3 to 1 for the colours of method and baseline."""
    for name in (plots.METHOD, plots.BASELINE, plots.THIRD):
        luminance = np.array([0.2126, 0.7152, 0.0722]) @ linear_rgb(name)
        assert 1.05 / (luminance + 0.05) > 3
