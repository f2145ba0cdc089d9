"""What a machine has of all that the project needs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

from lib import catalogue

SPARE_GB = 5


@dataclass(frozen=True)
class Finding:
    """One line of the report; `state` is ok, note (nothing to mend) or fault."""

    state: str
    topic: str
    text: str


def findings() -> Iterator[Finding]:
    """All checks, in the order of the report."""
    yield from _python()
    yield from _packages()
    yield from _kernel()
    yield from _device()
    yield from _data()
    yield from _checkout()


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding(
        "ok" if good else "fault", "python", f"{platform.python_version()} at {sys.executable} (needs 3.11 or later)"
    )
    free = shutil.disk_usage(catalogue.root()).free / 2**30
    yield Finding("ok" if free > SPARE_GB else "fault", "disk", f"{free:.0f} GB free at {catalogue.root()}")


def _packages() -> Iterator[Finding]:
    project = tomllib.loads((catalogue.root() / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for group, required, wanted in [
        ("lib", True, project["dependencies"]),
        *((n, n == "book", r) for n, r in extras.items()),
    ]:
        bad = []
        for requirement in map(Requirement, wanted):
            try:
                have = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                bad.append(f"{requirement.name} is missing")
                continue
            if not requirement.specifier.contains(have, prereleases=True):
                bad.append(f"{requirement.name} is {have}, needs {requirement.specifier}")
        state = "ok" if not bad else "fault" if required else "note"
        yield Finding(state, f"packages ({group})", "; ".join(bad) or f"all {len(wanted)} as required")


def _kernel() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        folder = KernelSpecManager().get_kernel_spec("python3").resource_dir
        yield Finding("ok", "kernel", f"python3 at {folder}")
    except NoSuchKernel:
        yield Finding("fault", "kernel", "no Jupyter kernel python3: `python -m ipykernel install --sys-prefix`")


def _device() -> Iterator[Finding]:
    import torch

    from lib._torchvision import torchvision

    yield Finding("ok", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads on {os.cpu_count()} cores")
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Finding("ok", "device", f"cuda: {names}")
    else:
        yield Finding("note", "device", "cpu (no CUDA device; the default of every chapter needs none)")
    try:
        torchvision()
        yield Finding("ok", "torchvision", metadata.version("torchvision"))
    except Exception as error:  # a wheel for another torch fails in many ways
        yield Finding("note", "torchvision", f"cannot be imported ({error}); only the loaders of image sets need it")


def _data() -> Iterator[Finding]:
    for name in ("COMPANION_DATA", "COMPANION_CACHE", "COMPANION_DEVICE", "COMPANION_QUIET", "OMP_NUM_THREADS"):
        if os.environ.get(name):
            yield Finding("note", "environment", f"{name}={os.environ[name]}")
    mirror = os.environ.get("COMPANION_DATA")
    if mirror and not os.path.isdir(mirror):
        yield Finding("fault", "data", f"COMPANION_DATA names {mirror}, which is no folder")
    elif not mirror:
        yield Finding("note", "data", "COMPANION_DATA is not set: real data sets are downloaded when first used")


def _checkout() -> Iterator[Finding]:
    from lib.run.execute import why_stale, written

    try:
        papers = catalogue.load()
    except catalogue.CatalogueError as error:
        yield Finding("fault", "catalogue", str(error))
        return
    broken = catalogue.check_lock()
    yield Finding("fault" if broken else "ok", "claims", "; ".join(broken[:3]) or "as registered in claims.lock")
    chapters = written()
    stale = [paper.slug for paper in chapters if why_stale(paper)]
    text = f"{len(papers)} in the catalogue, {len(chapters)} chapters, {len(stale)} stale"
    yield Finding("ok", "papers", text + (f" ({', '.join(stale[:5])})" if stale else ""))
