"""The tables over all papers: the catalogue, all claims, and the papers by topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lib import catalogue
from lib.run.pages.chapter import effect
from lib.run.pages.evidence import Evidence, number
from lib.run.pages.markup import Cell, escape, link, pill, raw, state, table

CLASSES = "companion-table filterable"


def paper_link(each: Evidence, up: str = "../") -> str:
    """The paper's short title, leading to its page."""
    return link(up + each.page, escape(each.paper.short_title))


def papers(found: Iterable[Evidence]) -> str:
    """All papers: link, part, kind, year, tags, claims, state."""
    short = {part.slug: part.short_title for part in catalogue.parts()}
    rows: list[list[Cell]] = []
    for each in found:
        paper = each.paper
        source = link(f"https://arxiv.org/abs/{paper.arxiv}", "arXiv") if paper.arxiv else "no preprint known"
        verdicts = "|".join(dict.fromkeys(each.verdicts.values()))
        rows.append(
            [
                f"{paper_link(each)}<small>{escape(paper.title)} ({source})</small>",
                link(f"parts/{paper.part}.html", escape(short[paper.part])),
                escape(paper.kind),
                str(paper.year),
                (f'data-v="{"|".join(paper.tags)}"', ", ".join(paper.tags)),
                link(f"verdicts.html?q={paper.slug}", str(len(paper.claims))),
                (f'data-v="{"executed|" + verdicts if each.executed else "planned"}"', state(each)),
            ]
        )
    return table(CLASSES, ["Paper", "*Part", "*Kind", "*Year", "*Tags", "Claims", "*State"], rows)


def claims(found: Iterable[Evidence]) -> str:
    """Every registered claim with its test, and its verdict where it was judged."""
    short = {part.slug: part.short_title for part in catalogue.parts()}
    rows: list[list[Cell]] = []
    for each in found:
        for claim in each.paper.claims:
            entry = each.records["default"]["claims"].get(claim.id) if each.executed else None
            anchor = "#the-claims" if each.executed else ""
            rows.append(
                [
                    link("../" + each.page + anchor, escape(each.paper.short_title)),
                    f"<b>{escape(claim.id)}</b> {escape(claim.statement)}<small>{escape(claim.test)}</small>",
                    judged(entry),
                    claim.evidence,
                    escape(short[each.paper.part]),
                ]
            )
    header = ["Paper", "Claim and registered test", "*Verdict", "*Evidence", "*Part"]
    return table(CLASSES, header, rows)


def judged(entry: Mapping[str, Any] | None) -> Cell:
    """Verdict with effect and interval, or that there is none yet."""
    if entry is None:
        return pill("registered")
    return f'data-v="{entry["verdict"]}"', f"{pill(entry['verdict'])}<small>{effect(entry)}</small>"


def topics(found: list[Evidence], kinds: dict[str, str]) -> str:
    """The page of papers by kind and by tag.

    Args:
        found: all papers.
        kinds: kind -> one sentence about it.
    """
    lines = [
        "# By kind and by tag\n",
        "The kind says what is new in a paper, and so the room of `lib` for its module.",
    ]
    lines += ["The tags say what it is about. Papers with an executed chapter are set in bold.\n", "## By kind\n"]
    for kind in sorted({each.paper.kind for each in found}):
        lines += [f"### {kind.capitalize()}\n", f"{kinds[kind]}\n", _names([e for e in found if e.paper.kind == kind])]
    lines.append("## By tag\n")
    for tag in sorted({tag for each in found for tag in each.paper.tags}):
        lines += [f"### {tag.replace('-', ' ').capitalize()}\n", _names([e for e in found if tag in e.paper.tags])]
    return "\n".join(lines)


def _names(found: list[Evidence]) -> str:
    items = [f"<b>{paper_link(each)}</b>" if each.executed else paper_link(each) for each in found]
    return raw(f'<p class="names"><span>{number(len(found), "paper")}:</span> ' + " · ".join(items) + "</p>")
