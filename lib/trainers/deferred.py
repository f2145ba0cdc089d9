"""Paired training in two phases: numbers of the loss or of the gradient rule change once, on the way.

Deferred re-weighting (DRW; Cao et al. 2019, arXiv:1906.07413, algorithm 1) trains with plain cross-entropy first and
with class weights for the rest; a radius of SAM or a margin may be switched likewise.  Here the switch is a change of
*numbers* (``beta: 0 -> 0.9999``), so that the function stays one and the runs of a group stay one stack: the loop of
`lib.trainers.train_paired`, same initialisation and same batches within a seed, momentum kept at the switch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lib import runtime
from lib.trainers._job import Job, Method, Runs, Setting, for_seed, prepare, unique_names
from lib.trainers._stack import CHECK_EVERY, MAX_RUNS, RECORD_FROM, _collect, _Stack
from lib.trainers._trace import Function, record
from lib.trainers.batches import Sampler, shuffled
from lib.trainers.optimisers import SGD, Optimiser
from lib.trainers.paired import Trained

__all__ = ["DeferredMethod", "train_deferred"]


@dataclass(frozen=True)
class DeferredMethod(Method):
    """A `Method` some of whose numbers have another value in the second phase.

    Args:
        late: new values of entries of `hyper` or `rule_hyper`, by name (a name that both have changes in both).
    """

    late: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.late) - set(self.hyper) - set(self.rule_hyper):
            raise ValueError(f"{self.name}: late values of unknown numbers: {', '.join(sorted(unknown))}")


def train_deferred(
    model_factory: Callable[[], nn.Module],
    methods: Sequence[DeferredMethod],
    data: Callable[[int], tuple[Tensor, Tensor]] | tuple[Tensor, Tensor],
    *,
    switch: float = 0.8,
    seeds: Sequence[int] = range(10),
    optimiser: Optimiser = SGD(),  # noqa: B008  (frozen)
    epochs: int = 30,
    batch_size: int = 64,
    sampler: Sampler | None = None,
    schedule: Callable[[float], float] | None = None,
    device: str | torch.device = "auto",
) -> Trained:
    """Train every method on every seed, from the same initialisation and with the same batches within a seed.

    Args:
        model_factory: builds an untrained network; called once a seed with torch's generator seeded by it.
        methods: what is compared; those with the same loss, rule and names of numbers form a stack.
        data: (x, y) for all seeds, or ``data(seed)`` with arrays of the same shapes for every seed.
        switch: share of the epochs after which the late values hold, rounded to a whole epoch; in [0, 1].
        seeds: of the runs: initialisation and order of the data.
        optimiser: `SGD`, `Adam` or `AdamW`.
        epochs: passes over the data, both phases together.
        batch_size: of the default sampler, which drops an incomplete last batch.
        sampler: another choice of batches.
        schedule: factor of the learning rate by the share of training done.
        device: see `lib.runtime.device`.

    Returns:
        `Trained`, without checkpoints.

    Raises:
        NonFiniteLoss: a loss or the last parameters are not finite.
        ValueError: names not unique, no epoch or seed, a switch outside [0, 1], or as `train_paired`.
    """
    names = unique_names(methods)
    if not 0 <= switch <= 1:
        raise ValueError(f"need a switch in [0, 1], got {switch}")
    job = prepare(
        model_factory, data, seeds, optimiser, epochs, sampler or shuffled(batch_size), schedule, device, None
    )
    groups: dict[object, list[DeferredMethod]] = {}
    for method in methods:
        key = (id(method.loss), id(method.gradient), tuple(sorted(method.hyper)), tuple(sorted(method.rule_hyper)))
        groups.setdefault(key, []).append(method)
    results: dict[str, Runs] = {}
    for group in groups.values():
        results.update(_train(job, group, round(switch * epochs)))
    return Trained(
        seeds=job.seeds,
        parameters={name: results[name].parameters for name in names},
        constants={name: results[name].constants for name in names},
        history={name: results[name].history for name in names},
        checkpoints={name: [] for name in names},
        diverged={name: results[name].diverged for name in names},
        _factory=model_factory,
        _sample_ndim=job.x.ndim - 1,
    )


def _train(job: Job, methods: Sequence[DeferredMethod], switch: int) -> dict[str, Runs]:
    runs = [(method, index) for method in methods for index in range(len(job.seeds))]
    count = math.ceil(len(runs) / MAX_RUNS) if job.device.type == "cpu" else 1
    size = math.ceil(len(runs) / count)
    steps: dict[tuple[torch.Size, ...], Function] = {}
    stacks = [_TwoPhases(job, runs[start : start + size], switch) for start in range(0, len(runs), size)]
    for stack in stacks:
        stack.train(steps)
    return {method.name: _collect(stacks, number * len(job.seeds), job) for number, method in enumerate(methods)}


class _TwoPhases(_Stack):
    """The stack of `train_paired`, with late values of its numbers from an epoch on."""

    def __init__(self, job: Job, runs: Sequence[tuple[DeferredMethod, int]], switch: int) -> None:
        super().__init__(job, runs)
        self.switch = switch

        def late(run: tuple[DeferredMethod, int], numbers: Mapping[str, Setting], key: str) -> float | Tensor:
            return run[0].late.get(key, for_seed(numbers[key], run[1]))

        early = (*self.hyper.values(), *self.rule_hyper.values())
        after = [self._column([late(run, run[0].hyper, key) for run in runs]) for key in self.hyper]
        after += [self._column([late(run, run[0].rule_hyper, key) for run in runs]) for key in self.rule_hyper]
        self.phases = [(*self.constants.values(), *numbers) for numbers in (early, after)]

    def train(self, recorded: dict[tuple[torch.Size, ...], Function]) -> None:
        """Run all epochs of both phases."""
        job = self.job
        lr = self._column([job.lr(method, index) for method, index in self.runs])[:, None]
        decays = [job.weight_decay(method) for method, _ in self.runs]
        decay = self._column(decays)[:, None] if any(decays) else None
        state = job.optimiser.state(self.rows)
        orders = {index: job.batches(index) for index in sorted({index for _, index in self.runs})}
        losses: list[Tensor] = []
        for epoch in runtime.progress(range(job.epochs), f"training {len(self.runs)} runs"):
            fixed = self.phases[epoch >= self.switch]
            batches = {index: next(order) for index, order in orders.items()}  # each (steps, B)
            picked = torch.stack([batches[index] for _, index in self.runs], dim=1).flatten(1).to(job.device)
            gradients: Function = self._gradients
            if job.epochs * len(picked) >= RECORD_FROM:
                shapes = (self.rows.shape, picked.shape[1:])
                if shapes not in recorded:
                    recorded[shapes] = record(self._gradients, (job.x, job.y, picked[0], self.rows, *fixed))
                gradients = recorded[shapes]
            for number, samples in enumerate(picked):
                grad, loss = gradients(job.x, job.y, samples, self.rows, *fixed)
                losses.append(loss)
                factor = job.schedule((epoch + number / len(picked)) / job.epochs)
                job.optimiser.update(self.rows, grad, state, len(losses), lr * factor, decay)
                if len(losses) % CHECK_EVERY == 0:
                    self._check(losses)
        last = torch.where(self.rows.isfinite().all(dim=1), 0.0, torch.nan).to(self.rows)
        self._check([*losses, last])
        self._finish(torch.stack([*losses, last], dim=1).cpu(), [])
