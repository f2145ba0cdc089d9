"""Device, seeds, threads, progress bars, and the error for a training run whose loss is not finite."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")


class DeviceError(RuntimeError):
    """The device that was asked for does not exist here."""


class NonFiniteLoss(RuntimeError):
    """A training run produced a NaN or an infinite loss (or parameter).

    Attributes:
        run: name of the method, or of the whole run.
        seed: of the run, None where it has none.
        step: first step (from 0) whose loss is not finite; the number of steps where only the last update broke.
        last_finite: the losses of the last steps before it, oldest first.
    """

    def __init__(self, run: str, seed: int | None, step: int, last_finite: Sequence[float] = ()) -> None:
        self.run, self.seed, self.step, self.last_finite = run, seed, step, tuple(last_finite)
        who = run if seed is None else f"{run}, seed {seed}"
        before = ", ".join(f"{value:.6g}" for value in self.last_finite) or "none"
        super().__init__(f"{who}: loss not finite at step {step}; last finite losses: {before}")


_DATA_READ: list[str] = []


def note_data(name: str) -> None:
    """Remembers that a data set was read in this process, so that records can name their data."""
    if name not in _DATA_READ:
        _DATA_READ.append(name)


def data_read() -> list[str]:
    """Names of the data sets read so far (those of `data/sources.yaml`), sorted."""
    return sorted(_DATA_READ)


def device(name: str = "auto") -> torch.device:
    """The device to compute on.

    Args:
        name: "auto" takes the one named by the environment variable `COMPANION_DEVICE`, else CUDA where there is
            one, else the CPU; or "cpu", "cuda", "cuda:1".

    Raises:
        DeviceError: unknown name, or CUDA without a CUDA device.
    """
    if name == "auto":
        name = os.environ.get("COMPANION_DEVICE") or "auto"
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}; one of auto, cpu, cuda") from error
    if chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not supported; one of auto, cpu, cuda")
    if chosen.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (chosen.index or 0) >= count:
            raise DeviceError(f"device {name!r} asked for, but this machine has {count} CUDA devices; use --device cpu")
    return chosen


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy's legacy generator and torch on every device; code of `lib` takes generators instead."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (for libraries that still use it)
    torch.manual_seed(seed)


def generator(seed: int, device: str | torch.device = "cpu", stream: int = 0) -> torch.Generator:
    """A torch generator for one purpose; the same numbers come out whatever ran before.

    Two generators of one seed give the same numbers, so two purposes (which labels are wrong, which samples are left
    out) need different streams.

    Args:
        seed: of the run.
        device: that the numbers are drawn on; CPU and CUDA give different numbers.
        stream: 0 is ``manual_seed(seed)``; any other one is independent of it and of those of other seeds.
    """
    if stream:
        words = np.random.SeedSequence((seed, stream)).generate_state(2, np.uint32).tolist()
        seed = words[0] << 31 | words[1] >> 1
    return torch.Generator(device).manual_seed(seed)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Within the block torch's global CPU generator starts at `seed`; afterwards it is as before.

    For code that draws from the global generator, such as the initialisation of `torch.nn` layers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def threads(n: int) -> None:
    """Use n threads within one operation on the CPU (several experiments at once: 1 each).

    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"threads: need at least 1, got {n}")
    torch.set_num_threads(n)


def progress(iterable: Iterable[T], description: str = "", total: int | None = None) -> Iterator[T]:
    """Iterate with a bar in terminal or notebook that shows after half a second and goes when done.

    Silent with `COMPANION_QUIET=1` (so do the runs that are committed) and where stderr is not a terminal,
    other than in a notebook.
    """
    in_notebook = "ipykernel" in sys.modules
    if os.environ.get("COMPANION_QUIET") == "1" or not (in_notebook or sys.stderr.isatty()):
        yield from iterable
        return
    from tqdm.auto import tqdm  # importing it already warns where the notebook has no widgets

    yield from tqdm(iterable, desc=description, total=total, leave=False, delay=0.5)
