"""The state of the evidence: papers with their records, and how many claims came out how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lib import catalogue
from lib.run import show

ORDER = ("supported", "holds", "inconclusive", "not supported", "fails")
"""Verdicts in the order in which the book shows them."""


@dataclass(frozen=True)
class Evidence:
    """A paper with the records of its profiles (empty for a planned one)."""

    paper: catalogue.Paper
    records: Mapping[str, Mapping[str, Any]]

    @property
    def executed(self) -> bool:
        """Whether the book has a chapter of it with a record."""
        return "default" in self.records and self.paper.notebook.exists()

    @property
    def verdicts(self) -> dict[str, str]:
        """Claim -> verdict of the default run, in the order of the catalogue; empty for a planned paper."""
        if not self.executed:
            return {}
        judged = self.records["default"]["claims"]
        return {claim.id: judged[claim.id]["verdict"] for claim in self.paper.claims if claim.id in judged}

    @property
    def page(self) -> str:
        """Address of the paper's page from the root of the book: its chapter, or its line on the part's page."""
        if self.executed:
            return f"notebooks/{self.paper.part}/{self.paper.notebook.stem}.html"
        return f"book/parts/{self.paper.part}.html#{self.paper.slug}"


def collect() -> list[Evidence]:
    """All papers in book order."""
    return [Evidence(paper, show.records(paper)) for paper in catalogue.load().values()]


def leaderboard(part: str) -> Evidence | None:
    """The leaderboard of a part, if it has an executed one."""
    found = catalogue.leaderboards().get(f"{part}-leaderboard")
    return Evidence(found, show.records(found)) if found is not None and found.executed else None


def of(slug: str) -> Evidence:
    """One paper.

    Raises:
        catalogue.UnknownSlug: no such paper.
    """
    paper = catalogue.find(slug)
    return Evidence(paper, show.records(paper))


def tally(found: Iterable[Evidence]) -> dict[str, int]:
    """Verdict -> number of claims, in the book's order, without zeros."""
    counts = Counter(verdict for each in found for verdict in each.verdicts.values())
    return {verdict: counts[verdict] for verdict in ORDER if counts[verdict]}


def number(count: int, noun: str) -> str:
    """``1 paper``, ``1,515 claims``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def in_words(found: Iterable[Evidence]) -> str:
    """One sentence on papers, chapters, claims and verdicts."""
    found = list(found)
    done = [each for each in found if each.executed]
    claims = number(sum(len(each.paper.claims) for each in found), "registered claim")
    text = f"{number(len(found), 'paper')}, {claims}"
    if not done:
        return f"{text}; no chapter is executed yet."
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in tally(done).items())
    return f"{text}; {number(len(done), 'chapter')} executed: {verdicts}."
