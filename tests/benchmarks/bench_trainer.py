"""Throughput of 20 runs (two methods, ten seeds) on digits: the stack against the same trainer's plain loop.

Times are processor time on one thread, microseconds per training step of one run, everything included (initialisation,
recording the step, copies). `data loader` is one run of the loop that tutorials show, with `DataLoader` around the
same tensors; the plain loop already does without it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lib import runtime
from lib.data import digits
from lib.models import MLP
from lib.trainers import SGD, Adam, Method, Optimiser, train_paired

CASES: list[tuple[int, int, Optimiser]] = [
    (16, 16, SGD(lr=0.05, momentum=0.9)),
    (32, 16, SGD(lr=0.05, momentum=0.9)),
    (32, 32, SGD(lr=0.05, momentum=0.9)),
    (32, 64, SGD(lr=0.05, momentum=0.9)),
    (128, 16, SGD(lr=0.05, momentum=0.9)),
    (128, 64, SGD(lr=0.05, momentum=0.9)),
    (128, 64, Adam(lr=1e-3)),
]
SEEDS = range(10)
METHODS = [Method("first", cross_entropy), Method("second", cross_entropy, lr=1e-3)]
STEPS = 1500
REPEATS = 3


def seconds(action: Callable[[], Any]) -> float:
    """Least processor time of some repetitions: what other programs on the machine do not add to."""
    times = []
    for _ in range(REPEATS):
        begin = time.process_time()
        action()
        times.append(time.process_time() - begin)
    return min(times)


def tutorial(hidden: int, batch: int, optimiser: Optimiser, epochs: int) -> None:
    """One run as tutorials write it."""
    part = digits().train
    loader = DataLoader(TensorDataset(part.x, part.y), batch_size=batch, shuffle=True, drop_last=True)
    model = MLP([64, hidden, 10])
    descent = optimiser.torch(model.parameters(), optimiser.lr, optimiser.weight_decay)
    for _ in range(epochs):
        for x, y in loader:
            descent.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            descent.step()
            loss.item()


def train(hidden: int, batch: int, optimiser: Optimiser, epochs: int, vectorised: bool) -> None:
    """All runs, on the whole training part of the digits."""
    train_paired(
        lambda: MLP([64, hidden, 10]),
        METHODS,
        (digits().train.x, digits().train.y),
        seeds=SEEDS,
        optimiser=optimiser,
        epochs=epochs,
        batch_size=batch,
        vectorised=vectorised,
        device="cpu",
    )


def row(hidden: int, batch: int, optimiser: Optimiser) -> dict[str, Any]:
    """Times of one size; the loop trains a tenth of the steps, its cost a step is constant."""
    per_epoch = len(digits().train) // batch
    epochs, few = STEPS // per_epoch, max(1, STEPS // per_epoch // 10)
    runs = len(METHODS) * len(SEEDS)
    stack = seconds(lambda: train(hidden, batch, optimiser, epochs, True)) / (epochs * per_epoch * runs)
    loop = seconds(lambda: train(hidden, batch, optimiser, few, False)) / (few * per_epoch * runs)
    loader = seconds(lambda: tutorial(hidden, batch, optimiser, few)) / (few * per_epoch)
    return {
        "network": f"64-{hidden}-10",
        "batch": batch,
        "optimiser": type(optimiser).__name__,
        "runs": runs,
        "loop (us)": loop * 1e6,
        "stack (us)": stack * 1e6,
        "speed-up": loop / stack,
        "data loader (us)": loader * 1e6,
    }


def rows() -> Iterator[dict[str, Any]]:
    """One row a size of network and batch."""
    runtime.threads(1)
    train(8, 64, SGD(), 1, True)  # imports
    return (row(*case) for case in CASES)


def main() -> None:
    """Print the rows as JSON lines."""
    for measured in rows():
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
