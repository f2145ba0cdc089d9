"""What the book adds to a chapter: the line under its title, and the section on what was registered.

Both are made from catalogue and records when the page is built, so that a chapter cannot contradict them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib import catalogue
from lib.data.sets import data_sets
from lib.run import notebook as nb
from lib.run import parameters
from lib.run.pages.evidence import Evidence
from lib.run.pages.markup import Cell, escape, fidelity, link, paragraph, pill, table, verdicts

HARDWARE = {"cpu": "one CPU core", "cuda": "a GPU"}


def line(each: Evidence, source: str) -> str:
    """HTML under the title: verdicts, fidelity, cost, versions, links.

    Args:
        each: the paper with its records.
        source: address of the repository's files, ending in a slash.
    """
    paper = each.paper
    links = [link(source + paper.module.replace(".", "/") + ".py", f"<code>{paper.module}</code>")]
    if paper.arxiv:
        links.insert(0, link(f"https://arxiv.org/abs/{paper.arxiv}", f"arXiv:{paper.arxiv}"))
    if paper.code:
        links.append(link(paper.code, "the authors’ code"))
    first = f"{fidelity(paper)} {verdicts(each, '#the-claims')}" if paper.claims else escape(paper.idea)
    run = each.records.get("default", {}).get("run")
    second = " · ".join([*([cost(run)] if run else []), *links])
    return f'<div class="companion-line">{paragraph(first)}{paragraph(second, "companion-run")}</div>'


def cost(run: Mapping[str, Any]) -> str:
    """What a run took, and the versions that it ran on."""
    return (
        f"{run['seconds']:.0f} s and {run['peak_memory_mb']:,} MB on {HARDWARE.get(run['device'], run['device'])} · "
        f"lib {run['lib']}, torch {run['torch'].split('+')[0]}, Python {run['python']}"
    )


def registered(each: Evidence) -> str:
    """HTML of the section on parameters, profiles, deviations and amendments."""
    paper = each.paper
    about = {
        "high": "",
        "medium": " The paper leaves some steps of the method open.",
        "low": " The paper's text or code was out of reach.",
    }[paper.method_certainty]
    text = (
        "The claims of this page and the tests that decide them were fixed in the catalogue before anything was "
        f"run. This chapter is <em>{paper.fidelity}</em>: {escape(catalogue.FIDELITIES[paper.fidelity])}.{about}"
    )
    if not paper.claims:
        text = "Tasks, budget and seeds were fixed in the catalogue before the first run on these seeds."
    parts = [
        paragraph(text),
        _parameters(paper),
        _profiles(each),
        _reported(paper),
        _sentences("Deviations from the registered experiment, fixed before its first run", paper.deviations),
        _amendments(paper),
    ]
    return "".join(part for part in parts if part)


def _heading(text: str) -> str:
    return paragraph(f"<strong>{text}</strong>", "companion-subtitle")


def _sentences(title: str, sentences: tuple[str, ...]) -> str:
    if not sentences:
        return ""
    return _heading(title) + "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in sentences) + "</ul>"


def _parameters(paper: catalogue.Paper) -> str:
    """The notebook's parameters beside what was registered and what the other profiles use."""
    declared = parameters.of(nb.read(paper.notebook))
    shown = {name: one for name, one in declared.items() if name not in ("profile", "device")}
    profiles = {name: values for name, values in paper.profiles.items() if name != "smoke"}
    rows: list[list[Cell]] = []
    for name, one in shown.items():
        known = value(_as_declared(one, paper.parameters[name])) if name in paper.parameters else ""
        others = [value(values[name]) if name in values else "" for values in profiles.values()]
        rows.append(
            [f"<code>{name}</code>", escape(one.meaning), escape(one.allowed), value(one.default), known, *others]
        )
    header = ["Parameter", "Meaning", "Allowed", "Default", "Registered", *(escape(name) for name in profiles)]
    absent = [name for name in paper.parameters if name not in shown]
    note = ""
    if absent:
        named = ", ".join(f"<code>{name}</code> = {value(paper.parameters[name])}" for name in absent)
        note = paragraph(f"Registered under a name that this chapter does not use: {named}; see the deviations.")
    return _heading("Parameters") + table("companion-table parameters", header, rows) + note


def _as_declared(one: parameters.Parameter, registered: Any) -> Any:
    """A registered value as the notebook's type (the catalogue keeps some lists as text); as it is if that differs."""
    if not isinstance(registered, str) or one.item == "str":
        return registered
    try:
        return one.convert(registered)
    except parameters.ParameterError:
        return registered


def value(content: Any) -> str:
    """A parameter value as code."""
    if isinstance(content, list):
        content = ", ".join(map(str, content))
    return f"<code>{escape(str(content))}</code>"


def _profiles(each: Evidence) -> str:
    """Verdicts of every recorded profile side by side, where there is more than the default."""
    if len(each.records) < 2:
        return ""
    header = ["Claim", *(f"{escape(name)}{_data(one)}<br>{cost(one['run'])}" for name, one in each.records.items())]
    rows: list[list[Cell]] = []
    for claim in each.paper.claims:
        judged = [_judged(one["claims"].get(claim.id)) for one in each.records.values()]
        rows.append([f"<strong>{escape(claim.id)}</strong>", *judged])
    return _heading("The same claims under other profiles") + table("companion-table", header, rows)


def _data(record: Mapping[str, Any]) -> str:
    """The sets that a run has read, each with a note if it is a part of what was published."""
    known = data_sets()
    named = [
        link(f"../../book/data.html#{name}", escape(known[name].title)) + (" (a subset)" if known[name].subset else "")
        for name in record.get("data", [])
        if name in known
    ]
    return f"<br>on {', '.join(named)}" if named else ""


def _reported(paper: catalogue.Paper) -> str:
    """The paper's own numbers on the same data, and what was different there."""
    if not paper.reported:
        return ""
    rows: list[list[Cell]] = [
        [escape(one["what"]), f"<strong>{escape(one['value'])}</strong>", *(escape(one[k]) for k in ("data", "setup"))]
        for one in paper.reported
    ]
    source = "; ".join(dict.fromkeys(escape(one["source"]) for one in paper.reported))
    return (
        _heading("Reported in the paper, not measured here")
        + table("companion-table", ["What", "The paper's number", "On", "What was different there"], rows)
        + paragraph(f"Source: {source}.")
    )


def _judged(entry: Mapping[str, Any] | None) -> str:
    return "" if entry is None else f"{pill(entry['verdict'])} {effect(entry)}"


def effect(entry: Mapping[str, Any]) -> str:
    """Effect and interval of a claim's entry in a record."""
    text = f"{entry['effect']:.3g}"
    if entry["low"] is not None and entry["high"] is not None:
        text += f" [{entry['low']:.3g}, {entry['high']:.3g}]"
    return text


def _amendments(paper: catalogue.Paper) -> str:
    if not paper.amendments:
        return ""
    items = []
    for change in paper.amendments:
        text = f"{change['date']}: {escape(change['what'])} Reason: {escape(change['reason'])}"
        if "before" in change:
            old = change["before"]
            text += (
                f"<br>Registered before as <strong>{escape(old['id'])}</strong>: {escape(old['statement'])} "
                f"Test: {escape(old['test'])}."
            )
        items.append(f"<li>{text}</li>")
    return _heading("Amendments, each dated") + "<ul>" + "".join(items) + "</ul>"
