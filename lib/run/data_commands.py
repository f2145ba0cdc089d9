"""The command line: the sets of real data."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lib.run.cli import app, fail

if TYPE_CHECKING:
    from lib.data.sets import DataSet

__all__ = ["app"]

data = typer.Typer(
    help="The sets of real data: which there are, getting them, checking their files.\n\n"
    "Files are looked for in the folder that COMPANION_DATA names, then in the cache (COMPANION_CACHE, else the user's "
    "cache folder), into which they are downloaded.",
    no_args_is_help=True,
)
app.add_typer(data, name="data")

Names = Annotated[list[str] | None, typer.Argument(help="Data sets (see `data list`).", show_default=False)]


@data.command("list")
def list_sets(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the data sets: size, licence, here or not, where. Looks for files, does not read them.

    Examples: `data list`, `data list --json`
    """
    from lib.data.sets import data_sets

    rows = [_row(each) for each in data_sets().values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        typer.echo(f"{row['name']:14} {row['state']:10} {size(row['bytes'], row['measured']):>12}  {row['title']}")
        details = [f"licence: {row['licence']}", *([f"subset: {row['subset']}"] if row["subset"] else [])]
        details += [f"in {folder}" for folder in row["folders"]]
        details += [f"missing: {', '.join(row['missing'])}"] if row["state"] == "in part" else []
        typer.echo("".join(f"{'':15}{line}\n" for line in details), nl=False)
    count = sum(row["state"] in ("here", "bundled") for row in rows)
    typer.echo(f"{len(rows)} data sets, {count} here; get others with `python -m lib data get NAME`")


@data.command()
def get(
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
) -> None:
    """Download what is missing, check it, and say where it is. Called again, it goes on where it stopped.

    Exit code 1 if a set could not be had.

    Examples: `data get mnist omniglot`, `data get --all`
    """
    from lib.data.sets import DamagedFile, DataUnavailable, data_sets
    from lib.run.pages.evidence import number

    if every == bool(names):
        raise fail("name data sets, or --all")
    failed = []
    for each in data_sets().values() if every else _named(names):
        if each.bundled:
            typer.echo(f"{each.name}: comes with {each.bundled}")
            continue
        try:
            with _told():
                paths = each.get()
        except (DataUnavailable, DamagedFile) as error:
            typer.echo(f"{each.name}: {error}", err=True)
            failed.append(each.name)
            continue
        folders = dict.fromkeys(str(path.parent) for path in paths)
        typer.echo(f"{each.name}: {number(len(paths), 'file')} in {', '.join(folders)}")
    if failed:
        raise fail(f"not complete: {', '.join(failed)}", 1)


@data.command()
def verify(names: Names = None) -> None:
    """Read every file that is here, in mirror and cache, and compare it with its hash.

    Exit code 1 if one is damaged, and, for sets that are named, if one is missing.

    Examples: `data verify`, `data verify mnist`
    """
    from lib.data._download import fault
    from lib.data.sets import data_sets

    faults = []
    for each in _named(names) if names else data_sets().values():
        good = 0
        for group in each.needed():
            found = [(file, path) for file in group for path in file.places() if path.exists()]
            wrong = [text for file, path in found if (text := fault(path, file.hashes))]
            good += len(found) > len(wrong)
            faults += wrong
            if names and not found:
                faults.append(f"{each.name}: {group[0].name} is not here")
        missing = len(each.needed()) - good
        counts = "1 file is right" if good == 1 else f"{good} files are right"
        counts += f", {missing} missing or damaged" if missing else ""
        typer.echo(f"{each.name}: " + (f"comes with {each.bundled}" if each.bundled else counts))
    if faults:
        raise fail(f"{len(faults)} faults\n" + "\n".join(faults), 1)


def size(count: int, measured: bool = True) -> str:
    """Bytes in the unit that suits, "over" them where some files are not measured; empty for none."""
    text = f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
    return text if count and measured else f"over {text}" if count else ""


def _named(names: list[str] | None) -> list[DataSet]:
    from lib.data.sets import find_set

    return [find_set(name) for name in dict.fromkeys(names or [])]


def _row(each: DataSet) -> dict[str, Any]:
    found = {group[0].name: next(filter(None, (file.seen() for file in group)), None) for group in each.needed()}
    missing = [name for name, path in found.items() if path is None]
    state = "bundled" if each.bundled else "in part" if missing else "here"
    if missing and len(missing) == len(found):
        state = "missing"
    fields = {key: getattr(each, key) for key in ("name", "title", "bytes", "licence", "subset", "changed", "bundled")}
    folders = dict.fromkeys(str(path.parent) for path in found.values() if path)
    return {**fields, "measured": each.measured, "state": state, "folders": list(folders), "missing": missing}


@contextmanager
def _told() -> Iterator[None]:
    """Warnings of damaged files as lines of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: typer.echo(f"note: {message}", err=True)  # type: ignore[assignment]
        yield
