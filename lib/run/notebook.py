"""Notebooks as files: reading, writing, and a normal form that an unchanged re-run reproduces byte for byte."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from lib import catalogue
from lib.run.files import write_if_changed

MIME = "application/vnd.companion.record+json"
"""`lib.record.MIME`, which looking a chapter up should not have to import torch for."""


class DamagedNotebook(ValueError):
    """A file that is no notebook, or half of one."""


class NoChapter(FileNotFoundError):
    """The paper has no notebook yet, or no record."""


KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")


def read(path: Path) -> NotebookNode:
    """Read a notebook as format 4.5 or later.

    Raises:
        DamagedNotebook: not a notebook.
    """
    try:
        notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
    except (ValueError, AttributeError, TypeError, KeyError, nbformat.ValidationError) as error:
        raise DamagedNotebook(f"{path}: not a notebook: {str(error).splitlines()[0][:200]}") from error
    return notebook


def of(paper: catalogue.Paper) -> NotebookNode:
    """The notebook of a paper.

    Raises:
        NoChapter: there is none yet.
        DamagedNotebook: the file is no notebook.
    """
    if not paper.notebook.exists():
        raise NoChapter(
            f"{paper.slug} has no chapter yet ({paper.notebook.relative_to(catalogue.root())}); "
            f"begin one with `python -m lib new {paper.slug}`"
        )
    return read(paper.notebook)


def write(path: Path, notebook: NotebookNode) -> bool:
    """Write a notebook atomically unless the file holds it already; returns whether it was written."""
    nbformat.validate(notebook)
    return write_if_changed(path, nbformat.writes(notebook, version=4) + "\n")  # type: ignore[no-untyped-call]


def source(cell: NotebookNode) -> str:
    """Text of a cell."""
    return str(cell["source"])


def tags(cell: NotebookNode) -> list[str]:
    """Tags of a cell."""
    return list(cell["metadata"].get("tags", []))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells in order."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """The cells with a tag."""
    return [cell for cell in notebook["cells"] if tag in tags(cell)]


def take_record(notebook: NotebookNode) -> dict[str, Any] | None:
    """The record that the chapter handed over (`Report.finish`), or None."""
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            if MIME in output.get("data", {}):
                return dict(output["data"][MIME])
    return None


def normalise(notebook: NotebookNode, digest: str) -> NotebookNode:
    """A copy in normal form: no times, no paths, no papermill traces, no record; ids follow from the content.

    The text that stands for an image (`text/plain`) becomes the alt text of the rendered figure.

    Args:
        notebook: executed.
        digest: of the code that it was executed with (`freshness.digest`).
    """
    cells, seen = [], Counter[str]()
    for cell in notebook["cells"]:
        name = hashlib.sha256(f"{cell['cell_type']}:{source(cell)}".encode()).hexdigest()[:12]
        seen[name] += 1
        made = {"cell_type": cell["cell_type"], "metadata": {}, "source": source(cell)}
        made["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
        kept = {
            key: value for key, value in cell["metadata"].items() if key not in ("papermill", "execution", "mystnb")
        }
        if not kept.get("tags", True):
            del kept["tags"]
        if cell["cell_type"] == "code":
            made["execution_count"] = cell["execution_count"]
            made["outputs"] = _outputs(cell["outputs"])
            other = {key: value for key, value in cell["metadata"].get("mystnb", {}).items() if key != "image"}
            alt = _alt(made["outputs"])
            if alt:
                other["image"] = {"alt": alt}
            if other:
                kept["mystnb"] = other
        elif "attachments" in cell:
            made["attachments"] = cell["attachments"]
        made["metadata"] = kept
        cells.append(made)
    metadata = {"companion": {"digest": digest}, "kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    minor = max(5, notebook["nbformat_minor"])
    plain = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": minor}
    return nbformat.from_dict(plain)  # type: ignore[no-any-return, no-untyped-call]


def _outputs(outputs: list[Any]) -> list[dict[str, Any]]:
    """Outputs without the record; how a stream was cut into messages depends on time, so its pieces are joined."""
    kept: list[dict[str, Any]] = []
    for output in outputs:
        output = dict(output)
        if output["output_type"] == "stream" and kept and kept[-1].get("name") == output["name"]:
            kept[-1]["text"] += output["text"]
            continue
        if "data" in output:
            output["data"] = {mime: data for mime, data in output["data"].items() if mime != MIME}
            output["metadata"] = {mime: data for mime, data in output["metadata"].items() if mime != MIME}
        kept.append(output)
    return kept


def _alt(outputs: list[dict[str, Any]]) -> str:
    """Alt text of a cell's figure: its plain text, on one line."""
    for output in outputs:
        data = output.get("data", {})
        if any(mime in data for mime in IMAGES):
            return " ".join(str(data.get("text/plain", "")).split())
    return ""
