"""Everything that follows from catalogue, records and notebooks, written in one go: `python -m lib sync`.

With `check` nothing is written; any difference is named and counts as a fault.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lib import catalogue
from lib.data.sets import data_sets
from lib.run import large_batches, rooms
from lib.run.files import write_if_changed
from lib.run.pages import bibliography, evidence, front, markup, parts, reference, sets, tables, thumbnails


@cache
def words() -> dict[str, Any]:
    """The hand-written sentences about parts and kinds.

    Raises:
        catalogue.CatalogueError: a part or a kind has none.
    """
    path = catalogue.root() / "book" / "words.yaml"
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    wanted = {"parts": {part.slug for part in catalogue.parts()}, "kinds": set(catalogue.KINDS)}
    for key, names in wanted.items():
        if set(found[key]) != names:
            raise catalogue.CatalogueError(f"{path}: {key}: differs in {sorted(set(found[key]) ^ names)}")
    return found


def generated() -> dict[Path, str]:
    """Path -> text of every generated file but stubs and thumbnails."""
    found = evidence.collect()
    pages = reference.documents()
    texts = {
        "_toc.yml": parts.contents(found, list(pages)),
        "book/references.bib": bibliography.page(each.paper for each in found),
        "book/topics.md": f"<!-- {parts.GENERATED} -->\n" + tables.topics(found, words()["kinds"]),
        "book/_generated/front.md": front.page(found),
        "book/_generated/papers.md": markup.raw(tables.papers(found)),
        "book/_generated/claims.md": f"{evidence.in_words(found)}\n\n" + markup.raw(tables.claims(found)),
        "book/_generated/data.md": sets.page(data_sets(), found),
        "book/_generated/large_batches.md": large_batches.page(),
        "book/_generated/gradcache.md": large_batches.cached(),
        "book/api/index.md": reference.index(list(pages)),
    }
    texts |= {f"{name}.md": text for name, text in pages.items()}
    for part in catalogue.parts():
        own = [each for each in found if each.paper.part == part.slug]
        texts[f"book/parts/{part.slug}.md"] = parts.page(part, own, words()["parts"][part.slug])
    return {catalogue.root() / name: text for name, text in texts.items()}


def sync(check: bool = False) -> list[Path]:
    """Write what differs; returns it. With `check` nothing is written."""
    changed = rooms.write_stubs(check)
    texts = generated()
    for path, text in texts.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            changed.append(path)
            if not check:
                write_if_changed(path, text)
    book = catalogue.root() / "book"
    for path in sorted({*(book / "parts").glob("*.md"), *(book / "api").glob("*.md")} - set(texts)):
        changed.append(path)
        if not check:
            path.unlink()
    executed = [paper for paper in catalogue.chapters().values() if paper.executed]
    return changed + thumbnails.update(executed, check) + thumbnails.copy_leaderboards(check)


def main(check: bool = False) -> int:
    """What the command `sync` does; returns its exit code."""
    changed = [path.relative_to(catalogue.root()) for path in sync(check)]
    if not changed:
        print("catalogue, records and pages agree")
        return 0
    for path in changed:
        print(f"{'differs' if check else 'wrote'} {path}", file=sys.stderr if check else sys.stdout)
    if check:
        print("run `python -m lib sync` and commit what it writes", file=sys.stderr)
    return int(check)
