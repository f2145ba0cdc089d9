"""The counted parts of the front page."""

from __future__ import annotations

from collections import Counter

from lib import catalogue
from lib.run.pages.evidence import Evidence, in_words, number, tally
from lib.run.pages.markup import escape, link, raw
from lib.run.pages.parts import cards

SHOWN = 8
"""Chapters on the front page, at most."""

TILES = {
    "supported": "claims supported",
    "inconclusive": "claims inconclusive",
    "not supported": "claims not supported",
    "holds": "exact claims hold",
    "fails": "exact claims fail",
}
"""What the front page says of each verdict."""


def counts(found: list[Evidence]) -> str:
    """Papers, chapters, claims and verdicts as large numbers."""
    done = [each for each in found if each.executed]
    claims = sum(len(each.paper.claims) for each in found)
    tiles = [
        ("papers", len(found), "papers in the catalogue", "catalogue.html"),
        ("claims", claims, "claims registered before any result", "verdicts.html"),
        ("chapters", len(done), "chapters executed", "catalogue.html?state=executed"),
    ]
    came_out = tally(found)
    for verdict, text in TILES.items() if done else ():
        url = f"verdicts.html?verdict={verdict.replace(' ', '+')}"
        tiles.append((verdict.replace(" ", "-"), came_out.get(verdict, 0), text, url))
    items = "".join(
        link(url, f'<b data-count="{key}">{count:,}</b><span>{escape(text)}</span>', f"tile tile-{key}")
        for key, count, text, url in tiles
    )
    return raw(f'<div class="tiles">{items}</div>')


def page(found: list[Evidence]) -> str:
    """What the front page includes: counts, executed chapters, parts."""
    done = [each for each in found if each.executed]
    lines = [counts(found)]
    if done:
        lines += ["## Read a chapter\n", cards(chosen(done), up="", brief=True)]
    lines += ["## The parts\n", raw(_parts(found))]
    return "\n".join(lines)


def chosen(done: list[Evidence]) -> list[Evidence]:
    """The chapters on the front page: the first of every part, then the second ..., as many as are shown."""
    seen: Counter[str] = Counter()
    ranks = []
    for index, each in enumerate(done):
        ranks.append((seen[each.paper.part], index))
        seen[each.paper.part] += 1
    return [done[index] for _, index in sorted(sorted(ranks)[:SHOWN], key=lambda rank: rank[1])]


def _parts(found: list[Evidence]) -> str:
    items = []
    for part in catalogue.parts():
        own = [each for each in found if each.paper.part == part.slug]
        done = sum(each.executed for each in own)
        text = f"{done} of {len(own)}" if done else number(len(own), "paper")
        title = link(f"parts/{part.slug}.html", escape(part.title))
        items.append(f'<li title="{escape(in_words(own))}">{title} <small>{text}</small></li>')
    return f'<ul class="part-list">{"".join(items)}</ul>'
