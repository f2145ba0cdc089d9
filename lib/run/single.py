"""One run with chosen parameters, into a folder of its own: executed notebook, HTML, record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from lib import catalogue, claims
from lib.run import chapter, freshness, parameters
from lib.run import notebook as nb
from lib.run.files import checkout_lock, lock, write_atomically
from lib.run.progress import Board

RECORD = "record.json"
LARGE = ("batch", "size", "images", "pairs", "samples", "seeds", "width")
"""What the names of parameters contain that memory grows with."""


@dataclass(frozen=True)
class Plan:
    """A run whose input has been checked.

    `values` differ from the defaults; `chosen` are the names among them that the caller gave, beyond the profile.
    """

    paper: catalogue.Paper
    notebook: NotebookNode
    values: Mapping[str, Any]
    chosen: tuple[str, ...]
    profile: str
    device: str
    digest: str

    @property
    def name(self) -> str:
        """Equal for equal work: profile and a hash of parameters, device and code."""
        text = json.dumps([dict(self.values), self.device, self.digest], sort_keys=True)
        return f"{self.profile}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @property
    def folder(self) -> Path:
        """Where the run goes unless told otherwise."""
        return catalogue.root() / "runs" / self.paper.slug / self.name


def plan(
    paper: catalogue.Paper,
    *,
    texts: Mapping[str, str] | None = None,
    values: Mapping[str, Any] | None = None,
    profile: str = "default",
    device: str = "auto",
    trust: bool = False,
) -> Plan:
    """Check everything that a run needs before anything starts.

    Args:
        paper: of the catalogue.
        texts: parameter values from the command line.
        values: parameter values of the declared types; they win over the profile, `texts` over both.
        profile: parameter set of the catalogue.
        device: auto, cpu or cuda; a parameter `device` wins.
        trust: take cuda for granted, because the run is not for this machine.

    Raises:
        notebook.NoChapter: the paper has no notebook yet.
        parameters.ParameterError: unknown parameter or profile, or a value that is not allowed.
        runtime.DeviceError: cuda was asked for and there is none.
    """
    notebook = nb.of(paper)
    declared = parameters.of(notebook)
    base = chapter.profile_values(paper, profile)
    given = dict(values or {})
    given |= {name: parameters.known(name, declared).convert(text) for name, text in (texts or {}).items()}
    if "profile" in given:
        raise parameters.ParameterError("parameter profile: choose a profile with --profile")
    device = given.pop("device", base.get("device", device))
    base = {name: value for name, value in base.items() if name != "device"}
    merged = parameters.resolve(declared, base, given)
    alone = parameters.resolve(declared, base)
    chosen = tuple(name for name in declared if merged.get(name) != alone.get(name))
    settled = device if trust and device == "cuda" else settle_device(device)
    return Plan(paper, notebook, merged, chosen, profile, settled, freshness.digest(paper, notebook))


def sizes(plan: Plan) -> dict[str, int]:
    """The parameters that the memory of a run grows with, batch sizes first, and their values in this run."""
    values = {
        name: plan.values.get(name, one.default)
        for name, one in parameters.of(plan.notebook).items()
        if one.type == "int" and any(word in name for word in LARGE)
    }
    return dict(sorted(values.items(), key=lambda item: "batch" not in item[0]))


def halved(plan: Plan) -> Plan | None:
    """The same run with half of each batch size, rounded up; None where there is none above 1.

    Raises:
        parameters.ParameterError: the chapter does not allow so small a batch.
    """
    smaller = {name: (size + 1) // 2 for name, size in sizes(plan).items() if "batch" in name and size > 1}
    if not smaller:
        return None
    declared = parameters.of(plan.notebook)
    values = parameters.resolve(declared, plan.values, smaller)
    chosen = tuple(dict.fromkeys([*plan.chosen, *smaller]))
    return replace(plan, values=values, chosen=chosen)


def advice(plan: Plan) -> str:
    """What to lower after a run that did not fit into the accelerator's memory."""
    named = ", ".join(f"{name} ({size})" for name, size in sizes(plan).items())
    batch = next((name for name in sizes(plan) if "batch" in name), None)
    text = f"the memory of the device was too small; lower {named or 'the size of the experiment'}"
    if batch is None:
        return text
    return f"{text}, e.g. -p {batch}={(sizes(plan)[batch] + 1) // 2}; --halve-batch does it by itself"


def settle_device(name: str) -> str:
    """cpu or cuda for auto, cpu or cuda.

    Raises:
        runtime.DeviceError: cuda was asked for and there is none.
        parameters.ParameterError: another name.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise parameters.ParameterError(f"device {name!r} is not allowed; one of auto, cpu, cuda")
    if name == "cpu":
        return name
    from lib import runtime  # imports torch

    return str(runtime.device(name).type)


def finished(plan: Plan, folder: Path) -> dict[str, Any] | None:
    """The record in a folder if it is that of this very plan, else None."""
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        wanted = {name: plan.values.get(name, value) for name, value in found["parameters"].items()}
        wanted = claims.significant(wanted)  # as records are
        same = found["digest"] == plan.digest and found["run"]["device"] == plan.device
        return found if same and found["parameters"] == wanted and found["profile"] == plan.profile else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run(plan: Plan, folder: Path, *, html: bool = True, again: bool = True, board: Board) -> dict[str, Any]:
    """Execute a plan; returns the record.

    The record is written last: where it is, the run is complete.

    Args:
        plan: checked.
        folder: gets `<slug>.ipynb`, `<slug>.html` and `record.json`; one run at a time works in it.
        html: whether to write the HTML.
        again: execute also where the folder holds the record of this plan.
        board: shows the progress.

    Raises:
        kernel.OutOfMemory: the accelerator's memory was too small (see `advice` and `halved`).
        kernel.ChapterFailed: with the traceback; the executed part is in `<slug>.failed.ipynb`.
        OSError: a file cannot be written.
    """
    slug = plan.paper.slug
    with lock(folder / ".lock", say=board.say):
        found = None if again else finished(plan, folder)
        if found is not None:
            board.say(f"{slug}: {folder} holds this run already")
            return found
        (folder / RECORD).unlink(missing_ok=True)
        board.start(slug)
        try:
            done = chapter.run(
                plan.paper,
                plan.notebook,
                {**plan.values},
                profile=plan.profile,
                device=plan.device,
                keep=folder / f"{slug}.failed.ipynb",
                observer=lambda cells, total: board.advance(slug, cells, total),
            )
        except BaseException:
            board.end(slug, "FAILED")
            raise
        nb.write(folder / f"{slug}.ipynb", done.notebook)
        if html:
            write_atomically(folder / f"{slug}.html", as_html(done.notebook, plan.paper.short_title))
        chapter.save(done, None, folder / RECORD)
        board.end(slug, f"executed in {done.record['run']['seconds']:.0f} s")
        return done.record


def publish(plan: Plan, folder: Path) -> Path:
    """Copy the record of a run into `data/records` as that of its profile.

    Raises:
        parameters.ParameterError: the run changed parameters beyond the profile, or is the default one.
    """
    refuse_publishing(plan)
    target = plan.paper.record(plan.profile)
    with checkout_lock():
        write_atomically(target, (folder / RECORD).read_bytes())
    return target


def refuse_publishing(plan: Plan) -> None:
    """See `publish`; called before the run starts."""
    if plan.profile == "default":
        raise parameters.ParameterError(
            f"--record is for other profiles; `python -m lib execute {plan.paper.slug}` makes the default record"
        )
    if plan.chosen:
        raise parameters.ParameterError(
            f"--record keeps a profile as it is registered, but {', '.join(plan.chosen)} was changed with -p"
        )


def as_html(notebook: NotebookNode, title: str) -> str:
    """A notebook as one HTML page with its figures inside."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(embed_images=True)  # type: ignore[no-untyped-call]
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
    return str(body)


def read_values(paths: Sequence[Path]) -> dict[str, Any]:
    """Parameter values of JSON files, later ones win.

    Raises:
        parameters.ParameterError: not a JSON object.
    """
    found: dict[str, Any] = {}
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise parameters.ParameterError(f"{path}: not a JSON file of parameters: {error}") from error
        if not isinstance(content, dict):
            raise parameters.ParameterError(f"{path}: must hold one JSON object, name to value")
        found |= content
    return found
