"""One chapter: execute it with some parameters and take out its record."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

import lib
from lib import catalogue, record
from lib.run import freshness, kernel, parameters
from lib.run import notebook as nb
from lib.run.files import write_if_changed


@dataclass(frozen=True)
class Done:
    """An executed chapter in normal form with its record."""

    notebook: NotebookNode
    record: dict[str, Any]


def profile_values(paper: catalogue.Paper, profile: str) -> Mapping[str, Any]:
    """The parameter values of a profile; the notebook learns the profile's name as a parameter.

    Raises:
        parameters.ParameterError: the catalogue gives the paper no such profile.
    """
    if profile == "default":
        return {}
    if profile not in paper.profiles:
        have = ", ".join(["default", *paper.profiles])
        raise parameters.ParameterError(f"{paper.slug} has no profile {profile!r}; it has {have}")
    return {**paper.profiles[profile], "profile": profile}


def run(
    paper: catalogue.Paper,
    notebook: NotebookNode,
    values: Mapping[str, Any],
    *,
    profile: str,
    device: str,
    keep: Path,
    observer: kernel.Observer,
) -> Done:
    """Execute a chapter.

    Args:
        paper: of the catalogue.
        notebook: its notebook.
        values: what differs from the defaults (`parameters.resolve`).
        profile: name of the parameter set that the record is about.
        device: cpu or cuda.
        keep: where the executed part is while it runs, and stays after a failure.
        observer: told after each code cell.

    Raises:
        kernel.ChapterFailed: a cell raised, the kernel died, or the chapter handed over no record.
    """
    digest = freshness.digest(paper, notebook)
    played = kernel.play(notebook, values, device=device, cwd=paper.notebook.parent, keep=keep, observer=observer)
    report = nb.take_record(played.notebook)
    if report is None:
        raise kernel.ChapterFailed("no cell ends with `report.finish()`, so there is no record")
    if (report["slug"], report["profile"]) != (paper.slug, profile):
        found = f"{report['slug']}, profile {report['profile']}"
        raise kernel.ChapterFailed(f"the chapter reports on {found}; asked for {paper.slug}, profile {profile}")
    own = {name: one for name, one in parameters.of(notebook).items() if name not in ("profile", "device")}
    report["parameters"] = {name: values.get(name, one.default) for name, one in own.items()}
    report["digest"] = digest
    report["run"] = {
        "lib": lib.__version__,
        "torch": version("torch"),
        "python": platform.python_version(),
        "device": device,
        "seconds": round(played.seconds, 1),
        "peak_memory_mb": round(played.peak_memory_mb),
    }
    if device == "cuda":
        import torch

        report["run"]["gpu"] = torch.cuda.get_device_name()
    keep.unlink(missing_ok=True)
    return Done(nb.normalise(played.notebook, digest), report)


def save(done: Done, notebook: Path | None, record_path: Path) -> None:
    """Write the record, then the notebook (None: the record alone).

    What a run cost differs each time; where nothing else does, the file keeps what it says.  The record goes first: a
    process killed between the two leaves a notebook whose digest is old, which the next call executes again.

    Raises:
        OSError: a file cannot be written; it is as it was.
    """
    content = dict(done.record)
    try:
        old = json.loads(record_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = {}
    if "run" in old and record.dumps({**content, "run": old["run"]}) == record_path.read_text(encoding="utf-8"):
        content["run"] = old["run"]
    write_if_changed(record_path, record.dumps(content))
    if notebook is not None:
        nb.write(notebook, done.notebook)
