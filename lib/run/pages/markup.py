"""Pieces of HTML that several pages share; `book/_static/companion.css` and `companion.js` know their classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from lib import catalogue
from lib.run.pages.evidence import Evidence

Cell = str | tuple[str, str]

__all__ = ["Cell", "escape", "fidelity", "link", "paragraph", "pill", "raw", "state", "table", "verdicts"]


def link(url: str, text: str, classes: str = "") -> str:
    """An anchor; `text` is HTML."""
    return f'<a href="{escape(url)}"' + (f' class="{classes}"' if classes else "") + f">{text}</a>"


def pill(verdict: str, text: str = "", href: str = "", title: str = "") -> str:
    """A verdict as a coloured label with its own sign; `text` replaces the words, which then are read out alone."""
    shown = f'{escape(text)}<span class="sr-only"> ({escape(verdict)})</span>' if text else escape(verdict)
    hint = f' title="{escape(title)}"' if title else ""
    classes = f"verdict verdict-{verdict.replace(' ', '-')}"
    if href:
        return f'<a class="{classes}" href="{escape(href)}"{hint}>{shown}</a>'
    return f'<span class="{classes}"{hint}>{shown}</span>'


def verdicts(each: Evidence, href: str = "") -> str:
    """One pill a claim, named by the claim; its statement is the tooltip."""
    statements = {claim.id: claim.statement for claim in each.paper.claims}
    return " ".join(
        pill(verdict, text=claim, href=href, title=f"{verdict}: {statements[claim]}")
        for claim, verdict in each.verdicts.items()
    )


def state(each: Evidence) -> str:
    """Verdict pills by number, or that it is planned."""
    if not each.executed:
        return pill("planned")
    labels = list(each.verdicts.values())
    return " ".join(pill(label, text=f"{labels.count(label)} {label}") for label in dict.fromkeys(labels))


def fidelity(paper: catalogue.Paper) -> str:
    """How close the chapter is to the paper."""
    meaning = catalogue.FIDELITIES[paper.fidelity]
    return f'<span class="fidelity fidelity-{paper.fidelity}" title="{escape(meaning)}">{paper.fidelity}</span>'


def table(classes: str, header: Sequence[str], rows: Iterable[Sequence[Cell]], attributes: Sequence[str] = ()) -> str:
    """A table that scrolls inside its own box; one row a line.

    Args:
        classes: of the table.
        header: HTML of the header cells; a leading ``*`` lets the reader filter by the column's values.
        rows: HTML of the cells, or (attributes of the tag, HTML).
        attributes: of the rows, e.g. their ids.
    """
    head = "".join(
        f'<th scope="col" data-filter>{name[1:]}</th>' if name.startswith("*") else f'<th scope="col">{name}</th>'
        for name in header
    )
    lines = [f'<div class="scroll"><table class="{classes}">', f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for index, row in enumerate(rows):
        own = f" {attributes[index]}" if attributes else ""
        lines.append(f"<tr{own}>" + "".join(map(_cell, row)) + "</tr>")
    return "\n".join([*lines, "</tbody>", "</table></div>"])


def _cell(cell: Cell) -> str:
    return f"<td>{cell}</td>" if isinstance(cell, str) else f"<td {cell[0]}>{cell[1]}</td>"


def paragraph(html: str, classes: str = "") -> str:
    """A paragraph of HTML."""
    return (f'<p class="{classes}">' if classes else "<p>") + f"{html}</p>"


def raw(html: str) -> str:
    """HTML inside a MyST page."""
    return f"```{{raw}} html\n{html}\n```\n"
