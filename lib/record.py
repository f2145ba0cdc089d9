"""A chapter's report: its metrics, and every registered claim put to its rule.

In a notebook::

    report = Report("circle-loss")
    report.table("Recall@1", frame)                        # tidy: one column a factor, last column the value
    report.test("beats-unified", claims.mean_above(circle - unified))
    report.finish()                                        # shows the verdicts; carries the record to the runner

`finish` puts the record into the output of its cell under a MIME type of its own.  The runner
(`python -m lib run`) takes it from there, adds parameters, digest and versions, and writes the JSON file;
a notebook that is run by hand writes nothing.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lib import catalogue, claims, runtime

if TYPE_CHECKING:
    import pandas as pd

MIME = "application/vnd.companion.record+json"
"""MIME type under which a notebook hands its record to the runner."""


@dataclass(frozen=True)
class Verdict:
    """A claim, the rule that judged it, and what came out."""

    claim: catalogue.Claim
    rule: claims.Rule
    outcome: claims.Outcome
    note: str = ""

    @property
    def label(self) -> str:
        """supported / not supported / inconclusive, or holds / fails for exact claims."""
        return claims.LABELS[self.claim.evidence][self.outcome.holds]

    @property
    def effect(self) -> str:
        """Effect with interval, for tables."""
        text = f"{self.outcome.effect:.3g}"
        if self.outcome.low is not None and self.outcome.high is not None:
            text += f" [{self.outcome.low:.3g}, {self.outcome.high:.3g}]"
        return text

    def as_dict(self) -> dict[str, Any]:
        """The part of the record about this claim."""
        numbers = {"effect": self.outcome.effect, "low": self.outcome.low, "high": self.outcome.high}
        shown = {"n": self.outcome.n, "threshold": self.outcome.threshold}
        return {"verdict": self.label, "rule": self.rule, "note": self.note, **claims.significant(numbers), **shown}

    def __str__(self) -> str:
        return f"{self.claim.id}: {self.label} ({self.effect}; rule: {self.outcome.threshold})"


class Report:
    """Collects what a chapter found; refuses unknown claims, claims tested twice, and claims left out.

    Args:
        slug: of the paper.
        profile: name of the parameter set (`default`, `reduced`, `full`), kept in the record.

    Raises:
        catalogue.UnknownSlug: no such paper.
    """

    def __init__(self, slug: str, profile: str = "default") -> None:
        self.paper = catalogue.find(slug)
        self.profile = profile
        self.verdicts: dict[str, Verdict] = {}
        self.metrics: dict[str, Any] = {}

    def table(self, name: str, frame: pd.DataFrame) -> None:
        """Keep a tidy table: a column per factor (method, arm, seed, ...), the measured value last.

        Raises:
            ValueError: the name is taken, or a number is not finite.
        """
        if name in self.metrics:
            raise ValueError(f"metric {name!r} is recorded already")
        rows = [list(row) for row in frame.itertuples(index=False, name=None)]
        self.metrics[name] = claims.significant({"columns": [str(c) for c in frame.columns], "rows": rows})

    def test(self, claim_id: str, rule: claims.Rule, note: str = "") -> Verdict:
        """Put a registered claim to its rule.

        Args:
            claim_id: of the catalogue.
            rule: from `lib.claims`.
            note: one sentence for the reader, e.g. the likely reason of a failure.

        Raises:
            ValueError: unknown or already tested claim, or data that the rule cannot judge.
        """
        known = {claim.id: claim for claim in self.paper.claims}
        if claim_id not in known:
            raise ValueError(f"{self.paper.slug} has no claim {claim_id!r}; its claims: {', '.join(known)}")
        if claim_id in self.verdicts:
            raise ValueError(f"claim {claim_id!r} was tested already; a verdict is not revised")
        verdict = Verdict(known[claim_id], rule, claims.evaluate(rule), note)
        self.verdicts[claim_id] = verdict
        return verdict

    def as_dict(self) -> dict[str, Any]:
        """The record so far, without what the runner adds."""
        return {
            "slug": self.paper.slug,
            "profile": self.profile,
            "metrics": self.metrics,
            "claims": {name: verdict.as_dict() for name, verdict in self.verdicts.items()},
            "data": runtime.data_read(),
        }

    def finish(self) -> Report:
        """Check that no claim was left out; as a cell's last expression, shows the verdicts and hands on the record.

        Raises:
            ValueError: claims of the catalogue that were not tested.
        """
        missing = [claim.id for claim in self.paper.claims if claim.id not in self.verdicts]
        if missing:
            raise ValueError(f"claims not tested: {', '.join(missing)}")
        return self

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": str(self)}
        if self.paper.claims:
            bundle["text/html"] = verdict_table(self.verdicts)
        if len(self.verdicts) == len(self.paper.claims):
            bundle[MIME] = self.as_dict()
        return bundle

    def __str__(self) -> str:
        nothing = "no claim tested yet" if self.paper.claims else "recorded"
        return "\n".join(map(str, self.verdicts.values())) or nothing


def verdict_table(verdicts: Mapping[str, Verdict]) -> str:
    """HTML table of verdicts; classes are styled by the book, and it reads well without."""
    rows = "".join(
        f"<tr><td><strong>{html.escape(name)}</strong><br>{html.escape(verdict.claim.statement)}"
        + (f"<br><em>{html.escape(verdict.note)}</em>" if verdict.note else "")
        + f"</td><td>{html.escape(verdict.claim.test)}</td>"
        f"<td>{html.escape(verdict.effect)}</td>"
        f'<td><span class="verdict verdict-{verdict.label.replace(" ", "-")}">{verdict.label}</span></td></tr>'
        for name, verdict in verdicts.items()
    )
    head = "<tr><th>Claim</th><th>Registered test</th><th>Effect [interval]</th><th>Verdict</th></tr>"
    return f'<table class="claims"><thead>{head}</thead><tbody>{rows}</tbody></table>'


def dumps(record: Mapping[str, Any]) -> str:
    """Canonical JSON of a record: sorted keys, six significant digits, a list of plain values on one line."""
    return _dumps(claims.significant(dict(record)), "") + "\n"


def _dumps(value: Any, indent: str) -> str:
    plain = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    items_nest = isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)
    nested = items_nest or (isinstance(value, dict) and bool(value))
    if not nested:
        return plain
    inner = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {_dumps(value[key], inner)}" for key in sorted(value)]
    else:
        items = [_dumps(item, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closing}"


def rederive(record: Mapping[str, Any]) -> list[str]:
    """Derive every verdict of a record again from its rules; what differs, one line each.

    Compares with the catalogue too: all claims present, none unknown.
    """
    paper = catalogue.find(record["slug"])
    evidence = {claim.id: claim.evidence for claim in paper.claims}
    stored = record["claims"]
    faults = [f"{name}: in the catalogue, not in the record" for name in evidence if name not in stored]
    for name, entry in stored.items():
        if name not in evidence:
            faults.append(f"{name}: in the record, not in the catalogue")
            continue
        try:
            outcome = claims.evaluate(entry["rule"])
        except (ValueError, KeyError, TypeError) as error:
            faults.append(f"{name}: its rule cannot be judged: {type(error).__name__}: {error}")
            continue
        label = claims.LABELS[evidence[name]][outcome.holds]
        if label != entry["verdict"]:
            faults.append(f"{name}: recorded as {entry['verdict']!r}, its numbers say {label!r}")
            continue
        for key in ("effect", "low", "high"):
            if not _close(getattr(outcome, key), entry[key]):
                faults.append(f"{name}: recorded {key} {entry[key]}, its numbers say {getattr(outcome, key)}")
    return faults


def _close(first: float | None, second: float | None) -> bool:
    """Equal up to the rounding of records."""
    if first is None or second is None:
        return first is second
    return abs(first - second) <= 1e-5 * max(abs(first), abs(second), 1e-12)
