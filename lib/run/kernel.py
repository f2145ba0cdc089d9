"""One notebook through papermill: environment of the kernel, progress, peak memory, faults."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import execute_notebook

from lib import catalogue
from lib.run.notebook import KERNELSPEC

Observer = Callable[[int, int], None]
"""Called with (cells done, cells in all) after each code cell."""

_STARTING = threading.Lock()
_RUNNING: set[int] = set()
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ChapterFailed(RuntimeError):
    """A chapter did not run to its end; the text is its traceback, or what else went wrong."""


class OutOfMemory(ChapterFailed):
    """The accelerator's memory was too small for a chapter."""


@dataclass(frozen=True)
class Played:
    """An executed notebook and what it cost (peak memory: of the kernel's own process)."""

    notebook: NotebookNode
    seconds: float
    peak_memory_mb: float


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    """Starts kernels one after the other: two that start at the same moment can choose the same ports."""

    started = False
    peak = 0.0

    def play(self, env: Mapping[str, str], cwd: str, observer: Observer) -> None:
        def after(cell: NotebookNode, cell_index: int, **_: Any) -> None:
            self.peak = max(self.peak, _peak_memory_mb(self.km.provisioner.pid))
            observer(cell_index + 1, len(self.nb.cells))

        self.on_cell_complete = after
        self.reset_execution_trackers()
        with tempfile.TemporaryDirectory(prefix="companion-", ignore_cleanup_errors=True) as folder:
            self.km = self.create_kernel_manager()
            if sys.platform != "win32":  # sockets in a private folder: no ports to race for, nobody else can listen
                self.km.transport, self.km.ip = "ipc", f"{folder}/kernel"
            with _STARTING:
                self.start_new_kernel(env=dict(env), cwd=cwd)
                self.start_new_kernel_client()
            self.started, pid = True, self.km.provisioner.pid
            _RUNNING.add(pid)
            try:
                with self.setup_kernel(cleanup_kc=True):
                    self.papermill_execute_cells()
            finally:
                _RUNNING.discard(pid)


class _Engine(NBClientEngine):  # type: ignore[misc]
    """Papermill's engine with an environment for the kernel, and a second try where it does not start."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        env: Mapping[str, str],
        kernel_cwd: str,
        observer: Observer,
        cost: dict[str, float],
        **_: Any,
    ) -> None:
        for last in (False, True):
            begin = time.perf_counter()
            client = _Client(nb_man, kernel_name=kernel_name, startup_timeout=120, shutdown_kernel="immediate")
            client.log = logging.getLogger("companion.kernel")
            try:
                client.play(env, kernel_cwd, observer)
                return
            except RuntimeError:
                if client.started or last:
                    raise
                time.sleep(1.0)
            finally:
                cost.update(seconds=time.perf_counter() - begin, peak_memory_mb=client.peak)


papermill_engines.register("companion", _Engine)
logging.getLogger("companion.kernel").setLevel(logging.CRITICAL)  # its faults reach the user as ChapterFailed


def stop_all() -> None:
    """Kill the running kernels; whoever plays a notebook then gets `ChapterFailed`."""
    for pid in list(_RUNNING):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def environment(device: str) -> dict[str, str]:
    """Environment of a kernel: the checkout's `lib`, one thread unless told otherwise, quiet bars, the device."""
    root = str(catalogue.root())
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    own = {"COMPANION_ROOT": root, "COMPANION_QUIET": "1", "COMPANION_DEVICE": device, "PYTHONPATH": path}
    return {**os.environ, **own, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def play(
    notebook: NotebookNode,
    parameters: Mapping[str, Any],
    *,
    device: str,
    cwd: Path,
    keep: Path,
    observer: Observer,
) -> Played:
    """Execute a notebook with parameters that were checked before.

    Args:
        notebook: left as it is.
        parameters: what differs from the defaults; empty adds no cell.
        device: what `lib.runtime.device("auto")` shall mean: cpu or cuda.
        cwd: working folder of the kernel.
        keep: where the executed part is written while it runs; after a failure it stays there.
        observer: told after each code cell.

    Raises:
        OutOfMemory: a cell found the accelerator's memory full.
        ChapterFailed: a cell raised, or the kernel did not start or died.
        OSError: `keep` cannot be written.
    """
    cost: dict[str, float] = {}
    keep.parent.mkdir(parents=True, exist_ok=True)
    try:
        executed = execute_notebook(
            copy.deepcopy(notebook),
            str(keep).replace("{", "{{").replace("}", "}}"),  # papermill takes the path for a format string
            parameters=dict(parameters),
            engine_name="companion",
            kernel_name=KERNELSPEC["name"],
            language=KERNELSPEC["language"],
            progress_bar=False,
            env=environment(device),
            kernel_cwd=str(cwd),
            observer=observer,
            cost=cost,
        )
    except PapermillExecutionError as error:
        full = error.ename == "OutOfMemoryError" or "CUDA out of memory" in str(error.evalue)
        raise (OutOfMemory if full else ChapterFailed)(_ANSI.sub("", str(error)).strip()) from error
    except DeadKernelError as error:
        raise ChapterFailed(
            f"the kernel died after {cost['peak_memory_mb']:.0f} MB (out of memory?): {error}"
        ) from error
    except RuntimeError as error:
        raise ChapterFailed(f"the kernel did not start: {error}") from error
    return Played(executed, cost["seconds"], cost["peak_memory_mb"])


def _peak_memory_mb(pid: int) -> float:
    """Largest resident memory of a process so far; where the system does not keep the peak, the present one."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]
    except (OSError, TypeError):
        try:
            return float(psutil.Process(pid).memory_info().rss) / 2**20
        except psutil.Error:
            return 0.0
