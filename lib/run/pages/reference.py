"""The API reference: a page a room of `lib`, a page for the tools, all from docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

from lib import catalogue
from lib.run import rooms
from lib.run.pages.parts import GENERATED

TOOLS = ("claims", "stats", "record", "catalogue", "plots", "runtime")
"""Modules outside the rooms that a chapter uses."""


def documents() -> dict[str, str]:
    """Document name -> text of every page of the reference but its index."""
    package = catalogue.root() / "lib"
    papers = {paper.module: paper for paper in catalogue.load().values()}
    pages = {}
    for room in rooms.rooms():
        modules = [path for path in sorted(room.glob("*.py")) if not path.stem.startswith("_")]
        if modules:
            names = {f"lib.{room.name}.{path.stem}": path for path in modules}
            pages[f"book/api/{room.name}"] = _page(f"lib.{room.name}", _summary(room / "__init__.py"), names, papers)
    tools = {f"lib.{name}": package / f"{name}.py" for name in TOOLS if (package / f"{name}.py").exists()}
    intro = "What chapters use beside the components: claims and statistics, records, figures, devices and seeds."
    pages["book/api/tools"] = _page("Tools", intro, tools, papers)
    return pages


def _page(title: str, intro: str, modules: dict[str, Path], papers: dict[str, catalogue.Paper]) -> str:
    lines = [f"<!-- {GENERATED} -->", f"# {title}\n", f"{intro}\n"]
    for module in modules:
        paper = papers.get(module)
        lines.append(f"## {paper.short_title if paper else module}\n")
        if paper and paper.executed:
            lines.append(f"`{module}` · [the chapter](../../notebooks/{paper.part}/{paper.slug}.ipynb)\n")
        lines.append(f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n   :show-inheritance:\n```\n")
    return "\n".join(lines)


def _summary(path: Path) -> str:
    """First paragraph of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0]


def index(names: list[str]) -> str:
    """The index of the reference."""
    lines = [
        f"<!-- {GENERATED} -->",
        "# API reference\n",
        "Every component is importable from its room, and nothing is loaded before it is used:\n",
        "```python\nfrom lib.losses import PolyLoss\n```\n",
        "The pages below are made from the docstrings, which give formula, shapes, errors and source.\n",
        "```{tableofcontents}\n```\n",
    ]
    return "\n".join(lines) if names else ""
