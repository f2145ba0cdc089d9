"""Commands. Whatever a command needs is imported when it runs, so that `list` and `show` answer at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lib import catalogue

app = typer.Typer(
    name="companion",
    help="Executable companions to machine-learning papers: look them up, run them, check their evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Slug = Annotated[str, typer.Argument(help="Slug of a paper, e.g. circle-loss (see `list`).", show_default=False)]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--param", "-p", metavar="NAME=VALUE", help="Parameter value; repeat for several.", show_default=False
    ),
]
Profile = Annotated[str, typer.Option(help="Parameter set of the catalogue: default, reduced or full.")]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")]


def fail(text: str, code: int = 2) -> typer.Exit:
    """Print one clear line; returns the exit to raise."""
    typer.echo(f"error: {text}", err=True)
    return typer.Exit(code)


@app.command()
def run(
    slug: Slug,
    param: Pairs = None,
    profile: Profile = "default",
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; default runs/SLUG/<profile>-<hash>.")
    ] = None,
    html: Annotated[bool, typer.Option(help="Write the executed chapter as HTML too.")] = True,
    record: Annotated[bool, typer.Option(help="Keep the record in data/records as that of the profile.")] = False,
    params_file: Annotated[
        list[Path] | None, typer.Option(help="JSON file of parameter values; -p wins over it.", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Do nothing if the folder holds this very run.")] = False,
) -> None:
    """Execute one chapter with chosen parameters and print its verdicts.

    Examples: `run circle-loss -p margin=0.25 -p gamma=128` or `run sam --profile full --device cuda --out results/sam`
    """
    from lib.run import parameters, show, single
    from lib.run.kernel import ChapterFailed
    from lib.run.progress import Board

    plan = single.plan(
        catalogue.find(slug),
        texts=parameters.split(param or []),
        values=single.read_values(params_file or []),
        profile=profile,
        device=device,
    )
    if record:
        single.refuse_publishing(plan)
    folder = (out or plan.folder).resolve()
    try:
        with Board(1) as board:
            found = single.run(plan, folder, html=html, again=not once, board=board)
        if record:
            typer.echo(f"record: {single.publish(plan, folder)}")
    except ChapterFailed as error:
        typer.echo(str(error), err=True)
        kept = folder / f"{slug}.failed.ipynb"
        raise fail(f"{slug} failed" + (f"; the executed part is in {kept}" if kept.exists() else ""), 1) from error
    except OSError as error:
        raise fail(f"cannot write the results: {error}", 1) from error
    typer.echo(show.verdicts(found))
    typer.echo(f"results: {folder}")


@app.command()
def execute(
    slugs: Annotated[list[str] | None, typer.Argument(help="Chapters; none means all that are stale.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Fresh chapters too.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Only stale ones, also among those named.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Chapters at once.")] = 1,
    wait: Annotated[bool, typer.Option(help="Wait for another `execute` in this checkout, or refuse.")] = True,
) -> None:
    """Execute chapters at their defaults and replace their notebooks and records.

    Examples: `execute`, `execute poly-loss sam`, `execute --all --jobs 2`
    """
    from lib.run import execute as machine

    if every and stale:
        raise fail("--all and --stale exclude each other")
    papers = [catalogue.find(slug) for slug in slugs] if slugs else machine.written()
    missing = [paper.slug for paper in papers if not paper.notebook.exists()]
    if missing:
        raise fail(f"no chapter yet: {', '.join(missing)}; begin one with `python -m lib new {missing[0]}`")
    results = machine.execute(papers, only_stale=stale or not (slugs or every), jobs=jobs, wait=wait)
    failed = [result for result in results if result.error]
    for result in failed:
        kept = f"\n(the executed part is in {result.kept})" if result.kept else ""
        typer.echo(f"\n{result.slug} FAILED:\n{result.error}{kept}", err=True)
    done = len(results) - len(failed)
    typer.echo(f"{done} executed, {len(papers) - len(results)} fresh, {len(failed)} failed")
    if failed:
        raise fail(f"failed: {', '.join(result.slug for result in failed)}", 1)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; errors of the user end in one line and exit code 2."""
    from lib.run.errors import expected

    try:
        app(arguments, prog_name="companion")
    except Exception as error:
        if not expected(error):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
