"""How long the book takes: from nothing, with nothing to do, after one edit, and with a chapter for every paper."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from lib import catalogue

sys.path.insert(0, str(Path(__file__).parent))
from _checkout import Copy, copied


def rows() -> Iterator[dict[str, Any]]:
    """Seconds of each, with the aim where there is one."""
    with copied() as copy:
        yield {"what": "cold build, real book", "seconds": copy.run("lib.run.book", "--strict", "--jobs", "2")}
        copy.make_book()
        yield {"what": "make book, nothing changed", "seconds": copy.make_book(), "aim": "< 5"}
        edit(copy)
        yield {"what": "make book, text of one chapter edited", "seconds": copy.make_book(), "aim": "< 15"}
    with copied() as copy:
        fill(copy)
        copy.run("lib", "sync")
        pages = len(list((copy.root / "notebooks").glob("*/*.ipynb")))
        seconds = copy.run("lib.run.book", "--jobs", "2")
        html = copy.root / "_build" / "html"
        built = len(list((html / "notebooks").glob("*/*.html")))
        assert built == pages == len(catalogue.load())
        yield {"what": f"cold build, {built} chapters, two processes", "seconds": seconds, "aim": "< 45"}
        edit(copy)
        seconds = copy.run("lib.run.book", "--jobs", "2")
        yield {"what": f"one of {built} chapters edited, pages built", "seconds": seconds}
        megabytes = sum(path.stat().st_size for path in html.rglob("*") if path.is_file()) / 1e6
        yield {"what": "its size", "MB": megabytes}
        yield {"what": "its search index", "MB": (html / "searchindex.js").stat().st_size / 1e6}
        yield {"what": "its table of claims", "MB": (html / "book" / "verdicts.html").stat().st_size / 1e6}


def edit(copy: Copy) -> None:
    """Add a sentence to the first chapter."""
    path = sorted((copy.root / "notebooks").glob("*/*.ipynb"))[0]
    notebook = nbformat.read(path, as_version=4)
    notebook["cells"][0]["source"] += "\n\nOne more sentence."
    nbformat.write(notebook, path)


def fill(copy: Copy) -> None:
    """Give every paper a chapter and a record: copies of the real ones, taken in turn, under the paper's own title."""
    done = [paper for paper in catalogue.load().values() if paper.executed]
    for index, paper in enumerate(catalogue.load().values()):
        if paper.executed:
            continue
        model = done[index % len(done)]
        notebook = nbformat.read(model.notebook, as_version=4)
        first = notebook["cells"][0]
        first["source"] = first["source"].replace(first["source"].splitlines()[0], f"# {paper.short_title}: a copy", 1)
        path = copy.root / paper.notebook.relative_to(catalogue.root())
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        record = json.loads(model.record().read_text(encoding="utf-8"))
        entries = list(record["claims"].values())
        record["claims"] = {claim.id: entries[k % len(entries)] for k, claim in enumerate(paper.claims)}
        target = copy.root / paper.record().relative_to(catalogue.root())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({**record, "slug": paper.slug}), encoding="utf-8")
    shutil.rmtree(copy.root / "_build", ignore_errors=True)
