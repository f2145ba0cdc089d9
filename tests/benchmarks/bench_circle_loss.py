"""CircleLoss against pytorch_metric_learning's: forward + backward time and peak memory, float32, d = 128, one thread.

Time: both in one process, in turn; medians.  Memory: each alone in a fresh process, the peak of one step above
what the process held before it.  A process may use 10 GB; one that needs more is reported as out of memory.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time

BATCHES = {512: 15, 2048: 7, 8192: 3}
"""Batch size -> repetitions."""
LIMIT = 10 * 2**30
OUT_OF_MEMORY = "out of memory"


def rows() -> list[dict]:
    """One row a batch size."""
    table = []
    for batch, repeats in BATCHES.items():
        memory = {who: _measure("memory", who, batch) for who in ("ours", "peer")}
        fits = [who for who, result in memory.items() if result != OUT_OF_MEMORY]
        seconds = {"ours": OUT_OF_MEMORY, "peer": OUT_OF_MEMORY} | _measure("time", ",".join(fits), batch, repeats)
        ratio = round(seconds["peer"] / seconds["ours"], 2) if len(fits) == 2 else None
        table.append(
            {
                "name": "CircleLoss",
                "batch": batch,
                "seconds_ours": seconds["ours"],
                "seconds_peer": seconds["peer"],
                "ratio": ratio,
                "memory_ours_mb": memory["ours"],
                "memory_peer_mb": memory["peer"],
            }
        )
    return table


def _measure(*arguments):
    """Run this file in a fresh process, under the memory limit."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, os.path.abspath(__file__), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _step(who: str, batch: int):
    """A forward and backward pass on P-K like data: eight samples a class."""
    import torch

    if who == "ours":
        from lib.losses import CircleLoss
    else:
        from pytorch_metric_learning.losses import CircleLoss
    loss = CircleLoss(m=0.4, gamma=80)
    x = torch.randn(batch, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.arange(batch) // 8

    def step() -> None:
        x.grad = None
        loss(x, labels).backward()

    return step


def _time(names: list[str], batch: int, repeats: int) -> dict[str, float]:
    steps = {who: _step(who, batch) for who in names}
    seconds: dict[str, list[float]] = {who: [] for who in names}
    for turn in range(repeats + 1):
        for who, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:  # the first is for warming up
                seconds[who].append(time.perf_counter() - start)
    return {who: round(statistics.median(values), 5) for who, values in seconds.items()}


def _status(field: str) -> float:
    """A field of the kernel's account of this process, in MB."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _memory(who: str, batch: int) -> float | str:
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    _step(who, 16)()  # imports and one-time buffers
    step = _step(who, batch)
    before = _status("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # forget the peak so far
    try:
        step()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        return OUT_OF_MEMORY
    return round(_status("VmHWM") - before, 1)


if __name__ == "__main__":
    what, names, *numbers = sys.argv[1:]
    if what == "memory":
        print(json.dumps(_memory(names, int(numbers[0]))))
    else:
        print(json.dumps(_time(names.split(","), *map(int, numbers))))
