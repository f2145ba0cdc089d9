"""The table and the pictures of the data sets, and which chapters use which."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from lib import catalogue
from lib.data.sets import DataSet
from lib.run import notebook as nb
from lib.run import parameters
from lib.run.contact_sheets import SHEETS
from lib.run.data_commands import size
from lib.run.pages.evidence import Evidence
from lib.run.pages.markup import Cell, escape, link, raw, table

QUIET = {"smoke"}
"""Profiles that are no evidence."""


def page(known: Mapping[str, DataSet], found: Iterable[Evidence]) -> str:
    """What `book/data.md` includes: a table of the sets, then a section each with its picture, terms and chapters."""
    users = uses(known, [each.paper for each in found if each.executed])
    rows: list[list[Cell]] = []
    sections = []
    for each in known.values():
        got = f"comes with {escape(each.bundled)}" if each.bundled else size(each.bytes, each.measured)
        chapters = link(f"#{each.name}", str(len(users[each.name])))
        part = f"<small>subset: {escape(each.subset)}</small>" if each.subset else ""
        rows.append([f"<b>{link(f'#{each.name}', escape(each.name))}</b>{part}", got, escape(each.licence), chapters])
        sections.append(_section(each, users[each.name]))
    return raw(table("companion-table", ["Set", "Size", "Licence", "Chapters"], rows)) + "\n" + "\n".join(sections)


def _section(each: DataSet, users: list[tuple[catalogue.Paper, list[str]]]) -> str:
    lines = [f"({each.name})=\n## {each.title}\n"]
    if each.name in SHEETS:
        lines.append(f"![{SHEETS[each.name][2]}](_static/data/{each.name}.png)\n")
    lines.append(f"{each.about}\n")
    if each.subset:
        lines.append(f"*A subset*: {each.subset}.\n")
    if each.changed:
        lines.append(f"*Changed against its source*: {each.changed}.\n")
    files = ", ".join(f"`{name}`" for name in each.files) or f"come with {each.bundled}"
    lines += [f"From: {each.citation} (<{each.source}>). Licence: {each.licence}.\n", f"Files: {files}.\n"]
    chapters = [
        f"[{paper.short_title}](../notebooks/{paper.part}/{paper.slug}.ipynb)"
        + (f" ({', '.join(profiles)})" if profiles else "")
        for paper, profiles in users
    ]
    return "\n".join([*lines, f"Used by: {', '.join(chapters) or 'no chapter yet'}.\n"])


def uses(
    known: Mapping[str, DataSet], papers: Iterable[catalogue.Paper]
) -> dict[str, list[tuple[catalogue.Paper, list[str]]]]:
    """Set -> the chapters that use it, each with the profiles in which it does so.

    A chapter uses a set when its code calls one of the set's loaders and, where that loader gives several sets, names
    the set.  A profile does so when a parameter has the name of the set (or "NAME-small"); a chapter that chooses by
    other means is there without profiles.
    """
    shared = {
        name for name, n in Counter(loader for each in known.values() for loader in each.loaders).items() if n > 1
    }
    found: dict[str, list[tuple[catalogue.Paper, list[str]]]] = {name: [] for name in known}
    for paper in papers:
        document = nb.read(paper.notebook)
        code = [cell["source"] for cell in nb.code_cells(document)]
        called = {node.id for text in code for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        defaults = {name: entry.default for name, entry in parameters.of(document).items()}
        profiles = {"default": defaults} | {
            name: {**defaults, **values} for name, values in paper.profiles.items() if name not in QUIET
        }
        for each in known.values():
            own = called & set(each.loaders)
            using = [
                profile for profile, values in profiles.items() if {each.name, f"{each.name}-small"} & _texts(values)
            ]
            name = each.name.replace("-", "[-_]")
            named = using or any(re.search(rf"(?<![\w-]){name}(?![\w-])", text) for text in code)
            if using or (own and (own - shared or named)):
                found[each.name].append((paper, using))
    return found


def _texts(values: Mapping[str, object]) -> set[str]:
    """The texts among parameter values, in lists too, with hyphens."""
    flat = [item for value in values.values() for item in (value if isinstance(value, list) else [value])]
    return {item.replace("_", "-") for item in flat if isinstance(item, str)}
