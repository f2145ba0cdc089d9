"""What the command line prints about papers and records."""

from __future__ import annotations

import difflib
import json
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lib import catalogue

STATES = ("planned", "executed", "stale")
Row = Mapping[str, Any]


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Aligned columns, the last one of any width."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join([lines[0], "-" * min(len(lines[0]), 100), *lines[1:]])


def wrapped(text: str, indent: str = "") -> str:
    """Text filled to the terminal's width, 100 columns at most."""
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


def verdicts(record: Row) -> str:
    """The claims of a record with effect, interval, rule and verdict."""
    rows = []
    for name, entry in record["claims"].items():
        interval = "" if entry["low"] is None else f"[{entry['low']:.3g}, {entry['high']:.3g}]"
        rows.append((name, entry["verdict"], f"{entry['effect']:.3g}", interval, entry["threshold"]))
    return table(rows, ("claim", "verdict", "effect", "interval", "rule"))


def records(paper: catalogue.Paper) -> dict[str, dict[str, Any]]:
    """Profile -> record of a paper; a damaged file counts as none (`verify` reports it)."""
    found = {}
    for path in sorted(paper.record().parent.glob("*.json"), key=lambda path: (path.stem != "default", path.stem)):
        try:
            found[path.stem] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
    return found


def one_of(name: str, value: str | None, allowed: Iterable[str]) -> None:
    """Check a filter.

    Raises:
        ValueError: not one of the allowed; names the nearest.
    """
    options = sorted(allowed)
    if value is not None and value not in options:
        near = difflib.get_close_matches(value, options, n=3, cutoff=0.5) or options[:20]
        raise ValueError(f"{name} {value!r} is unknown; nearest: {', '.join(near)}")


def listing(
    part: str | None = None, kind: str | None = None, tag: str | None = None, state: str | None = None
) -> list[dict[str, Any]]:
    """The papers that pass the filters, in book order, as plain data.

    Raises:
        ValueError: a filter that no paper can pass.
    """
    papers = catalogue.load()
    one_of("part", part, (each.slug for each in catalogue.parts()))
    one_of("kind", kind, catalogue.KINDS)
    one_of("tag", tag, {each for paper in papers.values() for each in paper.tags})
    one_of("state", state, STATES)
    chosen = [
        paper
        for paper in papers.values()
        if (part in (None, paper.part) and kind in (None, paper.kind) and (tag is None or tag in paper.tags))
        and (state is None or paper.executed == (state != "planned"))
    ]
    if state == "stale":
        from lib.run.execute import why_stale

        chosen = [paper for paper in chosen if why_stale(paper)]
    return [_row(paper) for paper in chosen]


def _row(paper: catalogue.Paper) -> dict[str, Any]:
    found = records(paper).get("default", {}).get("claims", {}) if paper.executed else {}
    plain = ("slug", "short_title", "title", "part", "kind", "year", "arxiv", "fidelity", "effort")
    return {
        **{name: getattr(paper, name) for name in plain},
        "tags": list(paper.tags),
        "state": "executed" if paper.executed else "planned",
        "verdicts": {claim: entry["verdict"] for claim, entry in found.items()},
    }


def listing_text(rows: Sequence[Row]) -> str:
    """`listing` as a table with its count."""
    cells = []
    for row in rows:
        labels = list(row["verdicts"].values())
        counted = ", ".join(f"{labels.count(label)} {label}" for label in dict.fromkeys(labels))
        cells.append((row["slug"], row["part"], row["kind"], row["state"], row["short_title"], counted))
    executed = sum(row["state"] == "executed" for row in rows)
    header = ("slug", "part", "kind", "state", "title", "verdicts")
    return f"{table(cells, header)}\n{len(rows)} papers, {executed} executed"


def page(paper: catalogue.Paper) -> str:
    """Everything about a paper: bibliography, parameters, claims with verdicts, how to run it."""
    found = records(paper)
    link = [f"arXiv {paper.arxiv}: https://arxiv.org/abs/{paper.arxiv}"] if paper.arxiv else []
    code = [f"code: {paper.code}"] if paper.code else []
    where = ", ".join(filter(None, [str(paper.year or ""), paper.venue]))
    names = ", ".join(paper.authors)
    about = f"part {paper.part}, {paper.kind}, fidelity {paper.fidelity}; module {paper.module}"
    lines = [paper.title, wrapped(names), where, *link, *code, about, "", wrapped(paper.idea), "", "Parameters"]
    lines += _parameters(paper)
    lines += ["", "Claims"] if paper.claims else []
    for claim in paper.claims:
        lines += [f"  {claim.id}", wrapped(claim.statement, "    "), wrapped(f"Test: {claim.test}", "    ")]
        for profile, record in found.items():
            entry = record["claims"].get(claim.id)
            if entry:
                interval = "" if entry["low"] is None else f" [{entry['low']:.3g}, {entry['high']:.3g}]"
                lines.append(f"    {profile}: {entry['verdict']} ({entry['effect']:.3g}{interval})")
    lines += [f"  changed on {change['date']}: {change['what']}" for change in paper.amendments]
    return "\n".join([*lines, "", "Run", *_commands(paper)])


def _parameters(paper: catalogue.Paper) -> list[str]:
    if not paper.notebook.exists():
        return [
            f"  {name} = {value}  (registered; the chapter is not written yet)"
            for name, value in paper.parameters.items()
        ]
    from lib.run import notebook as nb
    from lib.run import parameters

    lines = []
    for name, one in parameters.of(nb.of(paper)).items():
        lines += [f"  {name} = {json.dumps(one.default)}  ({one.allowed})", wrapped(one.meaning, "    ")]
    for name, values in paper.profiles.items():
        lines.append(f"  profile {name}: " + ", ".join(f"{key} = {value}" for key, value in values.items()))
    return lines


def _commands(paper: catalogue.Paper) -> list[str]:
    if not paper.notebook.exists():
        return [f"  python -m lib new {paper.slug}      # begin the chapter"]
    lines = [f"  python -m lib run {paper.slug}", f"  python -m lib run {paper.slug} -p NAME=VALUE"]
    lines += [f"  python -m lib run {paper.slug} --profile {name}" for name in paper.profiles]
    return [*lines, f"  python -m lib sweep {paper.slug} -p NAME=VALUE,VALUE,..."]
