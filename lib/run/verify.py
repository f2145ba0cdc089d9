"""Does the evidence hold together?  Catalogue, record and notebook of a chapter, compared without running anything."""

from __future__ import annotations

import json
from typing import Any

from lib import catalogue, claims, record
from lib.run import freshness, parameters
from lib.run import notebook as nb


def faults(paper: catalogue.Paper) -> list[str]:
    """What is wrong with a chapter's evidence, one line each; empty if nothing is.

    Verdicts are derived again from the numbers in the records; the default record must be of the code that is there
    now, and the verdicts that the page shows must be those of the record.

    Raises:
        nb.NoChapter: the paper has no chapter, or was never executed.
    """
    notebook = nb.of(paper)
    if not paper.record().exists():
        raise nb.NoChapter(f"{paper.slug} has no record; `python -m lib execute {paper.slug}` makes one")
    found = []
    for path in sorted(paper.record().parent.glob("*.json")):
        text = path.read_text(encoding="utf-8")
        try:
            stored = json.loads(text)
            lines = _record(paper, path.stem, stored, text)
            if path.stem == "default" and not lines:
                lines = _default(paper, notebook, stored)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            lines = [f"damaged: {type(error).__name__}: {error}"]
        found += [f"{path.relative_to(catalogue.root())}: {line}" for line in lines]
    return found


def _record(paper: catalogue.Paper, profile: str, stored: dict[str, Any], text: str) -> list[str]:
    lines = record.rederive(stored) if stored["slug"] == paper.slug else [f"is of {stored['slug']}"]
    if stored["profile"] != profile:
        lines.append(f"is of profile {stored['profile']!r}")
    if record.dumps(stored) != text:
        lines.append("was edited by hand: not in the form that the runner writes")
    own = {name for name in parameters.of(nb.of(paper)) if name not in ("profile", "device")}
    if set(stored["parameters"]) != own and profile == "default":
        lines.append("has other parameters than the notebook")
    return lines


def _default(paper: catalogue.Paper, notebook: Any, stored: dict[str, Any]) -> list[str]:
    lines = []
    current = freshness.digest(paper, notebook)
    if stored["digest"] != current:
        lines.append(f"is of other code (digest {stored['digest']}, now {current})")
    if notebook["metadata"].get("companion", {}).get("digest") != stored["digest"]:
        lines.append("is not of the run that the notebook shows")
    shown = _shown(notebook)
    for claim in paper.claims:
        entry = stored["claims"][claim.id]
        label = claims.LABELS[claim.evidence][claims.evaluate(entry["rule"]).holds]
        if shown.get(claim.id) != label:
            lines.append(
                f"{claim.id}: the notebook shows {shown.get(claim.id, 'nothing')!r}, the record says {label!r}"
            )
    return lines


def _shown(notebook: Any) -> dict[str, str]:
    """Claim -> verdict in the output of the cell that ends with `report.finish()`."""
    for cell in reversed(nb.code_cells(notebook)):
        if "report.finish()" not in nb.source(cell):
            continue
        text = "\n".join(str(output.get("data", {}).get("text/plain", "")) for output in cell["outputs"])
        return {line.split(":")[0]: line.split(": ")[1].split(" (")[0] for line in text.splitlines() if ": " in line}
    return {}
