"""The command line: looking up, checking and beginning chapters; `commands` adds running them.

Whatever a command needs is imported when it runs, so that `list` and `show` answer at once.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from lib import catalogue

app = typer.Typer(
    name="companion",
    help="Executable companions to machine-learning papers: look them up, run them, check their evidence.\n\n"
    "Exit codes: 0 all went well, 1 a run or a check failed, 2 the input cannot be used.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Slug = Annotated[str, typer.Argument(help="Slug of a paper, e.g. circle-loss (see `list`).", show_default=False)]


def fail(text: str, code: int = 2) -> typer.Exit:
    """Print one clear line; returns the exit to raise."""
    typer.echo(f"error: {text}", err=True)
    return typer.Exit(code)


@app.command("list")
def list_papers(
    part: Annotated[str | None, typer.Option(help="Only this part.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind: loss, optimiser, ...")] = None,
    tag: Annotated[str | None, typer.Option(help="Only papers with this tag.")] = None,
    state: Annotated[str | None, typer.Option(help="planned, executed or stale.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the papers with their state and verdicts.

    Examples: `list --state executed`, `list --part optimisation --tag curvature --json`
    """
    from lib.run import show

    try:
        rows = show.listing(part, kind, tag, state)
    except ValueError as error:
        raise fail(str(error)) from error
    typer.echo(json.dumps(rows, indent=1, ensure_ascii=False) if as_json else show.listing_text(rows))


@app.command()
def show(slug: Slug) -> None:
    """Show a paper: bibliography, parameters, claims with their verdicts, how to run it."""
    from lib.run import show as pages

    typer.echo(pages.page(catalogue.find(slug)))


@app.command()
def verify(
    slugs: Annotated[list[str] | None, typer.Argument(help="Chapters; none means all executed ones.")] = None,
) -> None:
    """Derive the verdicts again from the records and compare them with records, notebooks and code.

    Examples: `verify circle-loss`, `verify`
    """
    from lib.run import verify as evidence

    papers = [catalogue.find(slug) for slug in slugs or []]
    papers = papers or [paper for paper in catalogue.chapters().values() if paper.executed]
    broken = catalogue.check_lock()
    for paper in papers:
        lines = evidence.faults(paper)
        typer.echo(
            f"{paper.slug}: " + ("; ".join(lines) if lines else f"{len(paper.claims)} verdicts follow from its records")
        )
        broken += [f"{paper.slug}: {line}" for line in lines]
    if broken:
        raise fail(f"{len(broken)} faults\n" + "\n".join(broken), 1)


@app.command()
def new(slug: Slug) -> None:
    """Begin a chapter: module, test and notebook from the catalogue. Files that exist are never touched."""
    from lib.run import scaffold

    try:
        paths = scaffold.create(catalogue.find(slug))
    except FileExistsError as error:
        raise fail(str(error)) from error
    for path in paths:
        typer.echo(f"wrote {path.relative_to(catalogue.root())}")
    typer.echo(f"next: write them, then `python -m lib execute {slug}` (makes the record) and `python -m lib sync`")


@app.command()
def sync(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 on a difference.")] = False,
) -> None:
    """Generate contents, part pages, verdict table, bibliography and stubs from catalogue and records.

    With --check also: are the claims as they were registered?
    """
    from lib.run import sync as generator

    broken = catalogue.check_lock() if check else []
    for line in broken:
        typer.echo(line, err=True)
    raise typer.Exit(max(generator.main(check), int(bool(broken))))


@app.command()
def doctor() -> None:
    """Say what this machine has: Python, packages, kernel, device, data, checkout. Exit 1 if something is missing."""
    from lib.run import doctor as checks

    faults = 0
    for finding in checks.findings():
        faults += finding.state == "fault"
        typer.echo(f"{finding.state:5}  {finding.topic}: {finding.text}")
    if faults:
        raise fail(f"{faults} faults", 1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors that the user can mend end in one line and exit code 2."""
    from lib.run import commands, data_commands
    from lib.run.errors import expected

    assert commands.app is data_commands.app is app  # importing them added their commands
    try:
        app(arguments, prog_name="companion")
    except BrokenPipeError:  # `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if not expected(error):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
