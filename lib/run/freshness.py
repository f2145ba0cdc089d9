"""Is a chapter fresh?  A digest of everything that its numbers come from.

The digest covers the code cells (the parameters are one of them), the paper's claims, and every module of `lib` that
the code cells import, directly or through other modules.  Comments, docstrings and prose do not count: whoever
improves a sentence need not run the experiment again.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from lib import catalogue
from lib.run import notebook as nb
from lib.run import rooms

OUTSIDE = {"lib", "lib.catalogue"}
"""Modules that reach no number of a chapter: the version, and the reader of YAML (claims count by themselves)."""


@cache
def package() -> Path:
    """The folder of `lib` that chapters import: that of the checkout, else the installed one."""
    own = catalogue.root() / "lib"
    return own if own.is_dir() else Path(__file__).resolve().parent.parent


def file_of(module: str) -> Path | None:
    """Source file of a dotted module of `lib`, or None where there is no such module."""
    steps = module.split(".")
    if steps[0] != "lib":
        return None
    base = package().joinpath(*steps[1:])
    candidates = (base / "__init__.py",) if len(steps) == 1 else (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def imported(tree: ast.AST, module: str = "", is_package: bool = False) -> set[str]:
    """Modules of `lib` that a syntax tree imports anywhere, inside functions too.

    Args:
        tree: of a module or a cell.
        module: its dotted name, for relative imports.
        is_package: whether the tree is an `__init__.py`.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= _members(alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                steps = module.split(".")
                parents = steps[: len(steps) - node.level + is_package]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                found |= _members(base, alias.name)
    return found


def _members(base: str, name: str | None) -> set[str]:
    """Modules behind ``from base import name`` (``import base`` where `name` is None)."""
    path = file_of(base)
    if path is None:
        return set()
    if name is not None and file_of(f"{base}.{name}") is not None:
        return _members(f"{base}.{name}", None)
    if path.name != "__init__.py" or base == "lib":
        return {base}
    if path.with_suffix(".pyi").exists():  # a room: nothing of its own, everything in its modules
        origins = rooms.origins(base.split(".")[1])
        return {origins[name]} if name in origins else set(origins.values())
    return {base}


def modules(code: list[str]) -> list[str]:
    """All modules of `lib` that the code reaches, sorted."""
    waiting = {found for text in code for found in _imports_of_cell(text)}
    reached: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in reached or module in OUTSIDE:
            continue
        reached.add(module)
        waiting |= _imports_of_module(module)
    return sorted(reached)


def _imports_of_cell(text: str) -> set[str]:
    try:
        return imported(ast.parse(text))
    except SyntaxError:  # a cell with a magic line: keep what Python can read
        lines = [line for line in text.splitlines() if not line.lstrip().startswith(("%", "!"))]
        return imported(ast.parse("\n".join(lines)))


@cache
def _imports_of_module(module: str) -> set[str]:
    path = file_of(module)
    assert path is not None
    return imported(ast.parse(path.read_text(encoding="utf-8")), module, path.name == "__init__.py")


@cache
def _meaning_of_module(module: str) -> str:
    path = file_of(module)
    assert path is not None
    return meaning(path.read_text(encoding="utf-8"), docstrings=False)


def meaning(text: str, docstrings: bool = True) -> str:
    """What a Python text says to the interpreter, without comments and layout; the same under every Python version.

    (`ast.dump` shows empty fields in some versions and new fields in others; here empty fields never show.)
    """
    tree = ast.parse(text)
    if not docstrings:
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0] if node.body else None
                if (
                    isinstance(first, ast.Expr)
                    and isinstance(first.value, ast.Constant)
                    and type(first.value.value) is str
                ):
                    node.body = node.body[1:]
    return "".join(_dump(tree))


def _dump(node: Any) -> Iterator[str]:
    if isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        for name, value in ast.iter_fields(node):
            if value is not None and value != [] and name not in ("ctx", "kind", "type_comment"):
                yield f"{name}="
                yield from _dump(value)
        if isinstance(node, ast.Constant) and node.value is None:
            yield "None"
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _dump(item)
            yield ","
        yield "]"
    else:
        yield repr(node)


def forget() -> None:
    """Read the modules again: files may have changed since they were read."""
    for cached in (package, rooms.origins, _imports_of_module, _meaning_of_module):
        cached.cache_clear()


def digest(paper: catalogue.Paper, notebook: NotebookNode) -> str:
    """Digest of a chapter: 16 hexadecimal digits."""
    code = [nb.source(cell) for cell in nb.code_cells(notebook) if "injected-parameters" not in nb.tags(cell)]
    cells = []
    for text in code:
        try:
            cells.append(meaning(text))
        except SyntaxError:
            cells.append(text)
    claims = [[claim.id, claim.statement, claim.test, claim.evidence] for claim in paper.claims]
    library = {module: _meaning_of_module(module) for module in modules(code)}
    text = json.dumps([cells, claims, library], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stale(paper: catalogue.Paper) -> str:
    """Why a chapter must be executed again; empty if it is fresh.

    Raises:
        FileNotFoundError: the paper has no notebook yet.
        ValueError: its notebook is damaged.
    """
    notebook = nb.read(paper.notebook)
    if not paper.record().exists():
        return "no record"
    current = digest(paper, notebook)
    if notebook["metadata"].get("companion", {}).get("digest") != current:
        return "code changed since it was executed"
    if any(cell["execution_count"] is None for cell in nb.code_cells(notebook)):
        return "a cell was never executed"
    record = json.loads(paper.record().read_text(encoding="utf-8"))
    if record.get("digest") != current:
        return "the record is of other code"
    return ""
