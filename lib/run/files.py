"""Writing so that a good file is never replaced by half a file, and one writer at a time in a checkout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lib import catalogue


class Busy(RuntimeError):
    """Another process holds the lock, and the caller does not want to wait."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary file beside `path`, flush it to the disk, then rename it over `path`.

    Raises:
        OSError: e.g. the disk is full; `path` is as it was and the temporary file is gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_if_changed(path: Path, content: str) -> bool:
    """`write_atomically`, unless the file holds this already; returns whether it was written."""
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return False
    write_atomically(path, content)
    return True


def sweep_up() -> None:
    """Remove temporary files that a killed process left beside notebooks and records; call it under the lock."""
    for folder in (catalogue.root() / "notebooks", catalogue.root() / "data" / "records"):
        for leftover in folder.rglob(".*.tmp-*"):
            leftover.unlink(missing_ok=True)


@contextmanager
def lock(path: Path, wait: bool = True, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold the lock file at `path`; the operating system frees it when its holder dies, kill -9 included.

    Raises:
        Busy: somebody holds it and `wait` is false.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    guard = FileLock(path)
    try:
        guard.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise Busy(f"another process holds {path}; it is not waited for (--no-wait)") from None
        say(f"waiting for another process that holds {path} ...")
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


@contextmanager
def checkout_lock(wait: bool = True, say: Callable[[str], None] = print) -> Iterator[None]:
    """The lock of everything that writes notebooks and records of this checkout."""
    with lock(catalogue.root() / ".companion" / "execute.lock", wait, say):
        sweep_up()
        yield
