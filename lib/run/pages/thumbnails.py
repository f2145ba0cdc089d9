"""A small picture of each chapter: its first figure, scaled down."""

from __future__ import annotations

import base64
import hashlib
import io
from functools import cache
from pathlib import Path

from PIL import Image, PngImagePlugin

from lib import catalogue
from lib.run import notebook as nb
from lib.run.files import write_atomically

WIDTH, HEIGHT = 360, 180
KEY = "source-sha256"


def folder() -> Path:
    """Where they are."""
    return catalogue.root() / "book" / "_static" / "thumbnails"


def figure(paper: catalogue.Paper) -> tuple[bytes, str] | None:
    """The first PNG of a chapter with its alt text, or None."""
    return _figure(paper.notebook, paper.notebook.stat().st_mtime_ns)


@cache
def _figure(path: Path, changed: int) -> tuple[bytes, str] | None:
    """`figure` of a file as it was at a time; three pages ask for it."""
    for cell in nb.code_cells(nb.read(path)):
        for output in cell["outputs"]:
            image = output.get("data", {}).get("image/png")
            if image:
                alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
                return base64.b64decode(image), str(alt)
    return None


def fresh(path: Path, source: bytes) -> bool:
    """Whether a thumbnail was made of this figure (PNG encoders differ between machines, so bytes are not compared)."""
    if not path.exists():
        return False
    with Image.open(path) as image:
        return image.info.get(KEY) == hashlib.sha256(source).hexdigest()


def write(path: Path, source: bytes) -> None:
    """Scale a figure into WIDTH x HEIGHT on white, 64 colours."""
    with Image.open(io.BytesIO(source)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    canvas.paste(image, ((WIDTH - image.width) // 2, (HEIGHT - image.height) // 2))
    about = PngImagePlugin.PngInfo()
    about.add_text(KEY, hashlib.sha256(source).hexdigest())
    buffer = io.BytesIO()
    canvas.quantize(64, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True, pnginfo=about)
    write_atomically(path, buffer.getvalue())


def update(papers: list[catalogue.Paper], check: bool) -> list[Path]:
    """Thumbnails that are missing, old or of no chapter; written (removed) unless `check`."""
    changed, wanted = [], set()
    for paper in papers:
        found = figure(paper)
        if found is None:
            continue
        path = folder() / f"{paper.slug}.png"
        wanted.add(path)
        if not fresh(path, found[0]):
            changed.append(path)
            if not check:
                write(path, found[0])
    for path in sorted(set(folder().glob("*.png")) - wanted):
        changed.append(path)
        if not check:
            path.unlink()
    return changed


def copy_leaderboards(check: bool = False) -> list[Path]:
    """Write the first figure of each leaderboard for the page of its part; returns what differs."""
    changed = []
    for board in catalogue.leaderboards().values():
        picture = figure(board) if board.executed else None
        path = catalogue.root() / "book" / "_static" / "leaderboards" / f"{board.part}.png"
        if picture is not None and (not path.exists() or path.read_bytes() != picture[0]):
            changed.append(path)
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, picture[0])
    return changed
