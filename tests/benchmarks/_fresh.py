"""Time and memory of one step in fresh processes: ``python bench_<name>.py time|memory NAMES SIZE ...``, one thread.

Time: the candidates in one process, in turn; medians.  Memory: each alone, the peak of one step above what the process
held before it.  A process may use 10 GB; one that needs more is reported as out of memory.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

LIMIT = 10 * 2**30
WARM = 600
"""Size of the step before the one that is measured."""
OUT_OF_MEMORY = "out of memory"
Step = Callable[[], None]
MakeStep = Callable[[str, int], Step]
"""``make_step(who, size)``: the step of a candidate."""


def measure(script: str, *arguments: Any) -> Any:
    """Run a benchmark's file in a fresh process, under the memory limit.

    Raises:
        RuntimeError: it failed; the text is what it printed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, os.path.abspath(script), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(make_step: MakeStep) -> None:
    """What a benchmark's file does when it is run by `measure`."""
    what, names, size, *repeats = sys.argv[1:]
    if what == "memory":
        print(json.dumps(_memory(make_step, names, int(size))))
    else:
        print(json.dumps(_time(make_step, names.split(","), int(size), int(repeats[0]))))


def _time(make_step: MakeStep, names: list[str], size: int, repeats: int) -> dict[str, float]:
    steps = {who: make_step(who, size) for who in names}
    seconds: dict[str, list[float]] = {who: [] for who in names}
    for turn in range(repeats + 1):
        for who, step in steps.items():
            start = time.perf_counter()
            step()
            if turn or not repeats:  # the first is for warming up, unless it is the only one
                seconds[who].append(time.perf_counter() - start)
    return {who: round(statistics.median(values), 6) for who, values in seconds.items()}


def _status(field: str) -> float:
    """A field of the kernel's account of this process, in MB."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _memory(make_step: MakeStep, who: str, size: int) -> float | str:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    make_step(who, WARM)()  # imports and one-time buffers, those of the streamed path too
    ctypes.CDLL(None).malloc_trim(0)
    try:
        step = make_step(who, size)
        before = _status("VmRSS")
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")  # forget the peak so far
        step()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        return OUT_OF_MEMORY
    return round(_status("VmHWM") - before, 1)
