"""Progress of several chapters at once: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

EVERY = 10.0
"""Seconds between two plain lines about one chapter."""


class Board:
    """Shows how far each chapter is; a context manager, safe to use from threads."""

    def __init__(self, total: int, unit: str = "cells") -> None:
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self.live = sys.stderr.isatty()
        self.total, self.ended, self.unit = total, 0, unit
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=self.console, disable=not self.live, transient=True)
        self.tasks: dict[str, TaskID] = {}
        self.spoke: dict[str, float] = {}

    def __enter__(self) -> Board:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def say(self, text: str) -> None:
        """One line above the bars."""
        self.bars.console.print(text)

    def start(self, name: str) -> None:
        """A chapter begins."""
        self.tasks[name] = self.bars.add_task(name, total=None)
        self.spoke[name] = time.monotonic()
        if not self.live:
            self.say(f"{name}: started")

    def advance(self, name: str, done: int, total: int) -> None:
        """Some of it is done: cells of a chapter, points of a sweep."""
        self.bars.update(self.tasks[name], completed=done, total=total)
        now = time.monotonic()
        if not self.live and now - self.spoke[name] >= EVERY:
            self.spoke[name] = now
            self.say(f"{name}: {done} of {total} {self.unit}")

    def end(self, name: str, text: str) -> None:
        """A chapter is done; says how."""
        self.bars.remove_task(self.tasks.pop(name))
        self.ended += 1
        self.say(f"[{self.ended}/{self.total}] {name}: {text}")
