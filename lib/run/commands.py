"""The command line: running chapters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lib import catalogue
from lib.run.cli import Slug, app, fail

__all__ = ["app"]

Pairs = Annotated[
    list[str] | None,
    typer.Option(
        "--param", "-p", metavar="NAME=VALUE", help="Parameter value; repeat for several.", show_default=False
    ),
]
Profile = Annotated[str, typer.Option(help="Parameter set of the catalogue: default, reduced or full.")]
Device = Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu or cuda.")]


@app.command()
def run(
    slug: Slug,
    param: Pairs = None,
    profile: Profile = "default",
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results; default runs/SLUG/PROFILE-HASH.", show_default=False)
    ] = None,
    html: Annotated[bool, typer.Option(help="Write the executed chapter as HTML too.")] = True,
    record: Annotated[bool, typer.Option("--record", help="Keep the record in data/records as the profile's.")] = False,
    params_file: Annotated[
        list[Path] | None, typer.Option(help="JSON file of parameter values; -p wins over it.", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Do nothing if the folder holds this very run.")] = False,
    halve_batch: Annotated[
        bool, typer.Option("--halve-batch", help="Where a GPU's memory is too small, again with half the batch.")
    ] = False,
) -> None:
    """Execute one chapter with chosen parameters and print its verdicts.

    Examples: `run circle-loss -p margin=0.25 -p gamma=128`, `run sam --profile full --device cuda --out results/sam`
    """
    from lib.run import parameters, show, single
    from lib.run.kernel import ChapterFailed, OutOfMemory
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
        if halve_batch:
            raise fail("--record keeps a profile as it is registered, and --halve-batch may change it")
    try:
        while True:
            folder = (out or plan.folder).resolve()
            try:
                with Board(1) as board:
                    found = single.run(plan, folder, html=html, again=not once, board=board)
                break
            except OutOfMemory:
                smaller = single.halved(plan) if halve_batch else None
                if smaller is None:
                    raise
                plan = smaller
                typer.echo(f"out of memory; again with {single.sizes(plan)}", err=True)
        if record:
            typer.echo(f"record: {single.publish(plan, folder)}")
    except ChapterFailed as error:
        typer.echo(str(error), err=True)
        if isinstance(error, OutOfMemory):
            typer.echo(single.advice(plan), err=True)
        kept = folder / f"{slug}.failed.ipynb"
        raise fail(f"{slug} failed" + (f"; the executed part is in {kept}" if kept.exists() else ""), 1) from error
    except OSError as error:
        raise fail(f"cannot write the results: {error}", 1) from error
    typer.echo(show.verdicts(found))
    typer.echo(f"results: {folder}")


@app.command()
def sweep(
    slug: Slug,
    param: Pairs = None,
    profile: Profile = "default",
    device: Device = "auto",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Points at once.")] = 1,
    executor: Annotated[str, typer.Option(help="Where points run: local, slurm or kubernetes.")] = "local",
    profile_dir: Annotated[
        Path | None, typer.Option(help="Your own Snakemake profile instead of the packaged one.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of points and results; default runs/SLUG.", show_default=False)
    ] = None,
    html: Annotated[bool, typer.Option(help="Write each point as HTML too.")] = False,
) -> None:
    """Execute a chapter at every point of a grid; called again, it goes on where it stopped.

    Values: `-p margin=0.1,0.25,0.4`, whole numbers also `-p seed=0..4`, lists `-p "sizes=16,32;64,64"`. Ends with
    `table.csv` (a row a point), a CSV of each metric and `plot.png`; Parquet too where pyarrow is installed.

    Examples: `sweep circle-loss -p margin=0.1,0.25,0.4 -p seed=0..4 --jobs 2`,
    `sweep sam -p rho=0.02,0.05,0.1 --executor slurm --jobs 20`
    """
    from lib.run import parameters
    from lib.run import sweep as machine
    from lib.run.progress import Board

    prepared = machine.prepare(
        catalogue.find(slug),
        parameters.split(param or []),
        profile=profile,
        device=device,
        out=out,
        executor=executor,
        profile_folder=profile_dir,
    )
    with Board(1, unit="points") as board:
        records = machine.run(prepared, jobs=jobs, html=html, board=board)
    from lib.run import tables

    for path in tables.write(prepared.results, prepared.points, records):
        typer.echo(f"wrote {path}")
    missing = [plan.name for plan, record in zip(prepared.plans, records, strict=True) if record is None]
    if missing:
        log = prepared.results / "snakemake.log"
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise fail(f"{len(missing)} of {len(records)} points failed: {shown}; see {log}", 1)


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

    if every and (stale or slugs):
        raise fail("--all goes alone: neither with --stale nor with slugs")
    papers = [catalogue.find(slug) for slug in dict.fromkeys(slugs)] if slugs else machine.written()
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
