"""A sweep: a chapter at every point of a grid, through Snakemake, here or on a cluster.

Each point is a folder `<profile>-<hash>` as `python -m lib run` makes it, and is complete when its `record.json` is
there.  A sweep that was interrupted, or whose grid has grown, executes only what is missing.  Snakemake is told of the
missing points alone, and tracks them by markers of its own: it deletes what a job declares as output before the job
starts, and a record that a job of an earlier, killed sweep has just finished must survive that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib import catalogue
from lib.run import grid, parameters, single
from lib.run import notebook as nb
from lib.run.files import lock, write_if_changed
from lib.run.progress import Board

HERE = Path(__file__).resolve().parent
EXECUTORS = ("local", "slurm", "kubernetes")


class SweepError(ValueError):
    """A sweep that cannot begin: the executor, its plugin or its profile is missing."""


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: the grid's points, and for each the plan of its run."""

    slug: str
    points: Sequence[Mapping[str, Any]]
    plans: Sequence[single.Plan]
    folder: Path
    executor: str
    profile_folder: Path

    @property
    def results(self) -> Path:
        """Where tables and plot go: a folder named by the points."""
        text = " ".join(sorted(plan.name for plan in self.plans))
        return self.folder / f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def records(self) -> list[dict[str, Any] | None]:
        """The record of each point, None where it is not done."""
        return [single.finished(plan, self.folder / plan.name) for plan in self.plans]


def prepare(
    paper: catalogue.Paper,
    texts: Mapping[str, str],
    *,
    profile: str = "default",
    device: str = "auto",
    out: Path | None = None,
    executor: str = "local",
    profile_folder: Path | None = None,
) -> Sweep:
    """Check a sweep before anything starts.

    Args:
        paper: of the catalogue.
        texts: parameter -> its values as text (`grid.values`).
        profile: parameter set of the catalogue that the points start from.
        device: auto, cpu or cuda. A cluster's nodes are not this machine: there auto is cpu, and cuda taken on trust.
        out: folder of the points and results; default runs/<slug>.
        executor: local, slurm or kubernetes.
        profile_folder: a Snakemake profile to use instead of the packaged one.

    Raises:
        parameters.ParameterError: unknown parameter, or a value that is not allowed.
        SweepError: no such executor or profile, or its plugin is not installed.
    """
    if executor not in EXECUTORS:
        raise SweepError(f"executor {executor!r} is not known; one of {', '.join(EXECUTORS)}")
    local = executor == "local"
    if not local and importlib.util.find_spec(f"snakemake_executor_plugin_{executor}") is None:
        raise SweepError(f"the {executor} executor needs `pip install snakemake-executor-plugin-{executor}`")
    folder = (profile_folder or HERE / "profiles" / executor).resolve()
    if not (folder / "config.yaml").is_file():
        raise SweepError(f"{folder} is no Snakemake profile: it holds no config.yaml")
    if device == "auto" and not local:
        device = "cpu"
    points = grid.points(parameters.of(nb.of(paper)), texts)
    plans = [single.plan(paper, values=point, profile=profile, device=device, trust=not local) for point in points]
    base = (out or catalogue.root() / "runs" / paper.slug).resolve()
    return Sweep(paper.slug, points, plans, base, executor, folder)


def run(sweep: Sweep, *, jobs: int, html: bool = False, board: Board) -> list[dict[str, Any] | None]:
    """Execute what is missing; returns the record of each point, None where it failed.

    Args:
        sweep: prepared.
        jobs: points at once.
        html: whether each point gets its HTML.
        board: shows the progress; `snakemake.log` in the results folder has the rest.
    """
    with lock(sweep.folder / ".sweep.lock", say=board.say):
        done = [record is not None for record in sweep.records()]
        board.say(f"{sweep.slug}: {len(done)} points, {sum(done)} done before, {len(done) - sum(done)} to go")
        if not all(done):
            _snakemake(sweep, jobs, html, board)
        return sweep.records()


def _snakemake(sweep: Sweep, jobs: int, html: bool, board: Board) -> None:
    missing = []
    for point, plan, record in zip(sweep.points, sweep.plans, sweep.records(), strict=True):
        target = sweep.results / "points" / f"{plan.name}.json"
        write_if_changed(target, json.dumps(dict(point), sort_keys=True) + "\n")
        if record is None:
            missing.append(plan.name)
            (sweep.results / "done" / plan.name).unlink(missing_ok=True)
    first = sweep.plans[0]
    configuration = {
        "slug": sweep.slug,
        "profile": first.profile,
        "device": first.device,
        "root": str(catalogue.root()),
        "python": "python" if sweep.executor == "kubernetes" else sys.executable,
        "folder": str(sweep.folder),
        "values": str(sweep.results / "points"),
        "done": f"{sweep.results.name}/done",
        "points": missing,
        "html": html,
    }
    write_if_changed(sweep.results / "sweep.json", json.dumps(configuration, indent=1) + "\n")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(HERE / "sweep.smk")]
    command += ["--directory", str(sweep.folder), "--configfile", str(sweep.results / "sweep.json")]
    command += ["--profile", str(sweep.profile_folder), "--workflow-profile", "none"]
    command += ["--jobs", str(jobs), *(["--cores", str(jobs)] if sweep.executor == "local" else [])]
    command += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--keep-going", "--nolock"]
    board.start(sweep.slug)
    with (sweep.results / "snakemake.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                _count(sweep, board)
                time.sleep(0.5)
        except KeyboardInterrupt:
            process.wait(60)  # Snakemake was interrupted too and takes its jobs back
            raise
    _count(sweep, board)
    board.end(sweep.slug, "points done" if process.returncode == 0 else f"Snakemake stopped with {process.returncode}")


def _count(sweep: Sweep, board: Board) -> None:
    done = sum((sweep.folder / plan.name / single.RECORD).exists() for plan in sweep.plans)
    board.advance(sweep.slug, done, len(sweep.plans))
