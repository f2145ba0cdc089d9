"""The counted parts of the front page."""

from __future__ import annotations

from lib import catalogue
from lib.run.pages.evidence import Evidence, in_words, number, tally
from lib.run.pages.markup import escape, link, raw
from lib.run.pages.parts import cards


def counts(found: list[Evidence]) -> str:
    """Papers, chapters, claims and verdicts as large numbers."""
    done = [each for each in found if each.executed]
    claims = sum(len(each.paper.claims) for each in found)
    tiles = [
        ("papers", len(found), "papers in the catalogue", "catalogue.html"),
        ("claims", claims, "claims registered before any result", "verdicts.html"),
        ("chapters", len(done), "chapters executed", "catalogue.html?state=executed"),
    ]
    for verdict, count in tally(found).items():
        url = f"verdicts.html?verdict={verdict.replace(' ', '+')}"
        tiles.append((verdict.replace(" ", "-"), count, f"claims: {verdict}", url))
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
        lines += ["## Read a chapter\n", cards(done, up="")]
    lines += ["## The parts\n", raw(_parts(found))]
    return "\n".join(lines)


def _parts(found: list[Evidence]) -> str:
    items = []
    for part in catalogue.parts():
        own = [each for each in found if each.paper.part == part.slug]
        done = sum(each.executed for each in own)
        text = number(len(own), "paper") + (f", {number(done, 'chapter')}" if done else "")
        title = link(f"parts/{part.slug}.html", escape(part.title))
        items.append(f'<li title="{escape(in_words(own))}">{title} <small>{text}</small></li>')
    return f'<ul class="part-list">{"".join(items)}</ul>'
