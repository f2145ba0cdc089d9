"""All runs of a group as one stack: `torch.func` differentiates them together, one optimiser update moves them all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from lib import runtime
from lib.trainers._job import Job, Method, Parameters, Runs, for_seed
from lib.trainers._trace import Function, record

CHECK_EVERY = 50
"""Steps between looks at the losses: each look waits for the device; the step that is reported is exact anyway."""
MAX_RUNS = 40
"""Runs at a time on a CPU: more gain nothing once the overhead is shared, and outgrow the caches."""
RECORD_FROM = 200
"""Steps from which recording the step (a tenth of a second for two layers) pays."""


def train(job: Job, methods: Sequence[Method]) -> dict[str, Runs]:
    """Train methods with one loss function and one gradient rule, on all seeds."""
    runs = [(method, index) for method in methods for index in range(len(job.seeds))]
    count = math.ceil(len(runs) / MAX_RUNS) if job.device.type == "cpu" else 1
    size = math.ceil(len(runs) / count)
    stacks = [_Stack(job, runs[start : start + size]) for start in range(0, len(runs), size)]
    steps: dict[tuple[torch.Size, ...], Function] = {}  # recorded once for all stacks of one size
    for stack in stacks:
        stack.train(steps)
    return {method.name: _collect(stacks, number * len(job.seeds), job) for number, method in enumerate(methods)}


def _collect(stacks: Sequence[_Stack], start: int, job: Job) -> Runs:
    """The runs of one method out of all stacks, copied so that nothing else stays in memory."""

    def joined(pieces: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(pieces))[start : start + len(job.seeds)].clone()

    unflatten = stacks[0].unflatten
    return Runs(
        parameters=unflatten(joined([stack.rows for stack in stacks])),
        constants={key: joined([stack.constants[key] for stack in stacks]) for key in stacks[0].constants},
        history=joined([stack.history for stack in stacks]),
        checkpoints=[unflatten(joined(rows)) for rows in zip(*(stack.checkpoints for stack in stacks), strict=True)],
        diverged=joined([stack.diverged for stack in stacks]),
    )


class _Stack:
    """R runs in step; `rows` (R, P) holds the parameters of a run in one row."""

    def __init__(self, job: Job, runs: Sequence[tuple[Method, int]]) -> None:
        self.job, self.runs = job, runs
        networks = {index: job.network(job.seeds[index]) for index in sorted({index for _, index in runs})}
        self.network = next(iter(networks.values()))
        if any(getattr(part, "track_running_stats", False) for part in self.network.modules()):
            raise ValueError("batch normalisation keeps running statistics, which cannot be stacked: vectorised=False")
        tensors = [_tensors(networks[index]) for _, index in runs]
        trained = [key for key, value in tensors[0].items() if value.requires_grad]
        self.shapes = {key: tensors[0][key].shape for key in trained}
        self.rows = torch.stack([torch.cat([own[key].detach().flatten() for key in trained]) for own in tensors])
        self.constants = {
            key: torch.stack([own[key].detach() for own in tensors]) for key in tensors[0] if key not in trained
        }
        methods = [method for method, _ in runs]
        self.hyper = {
            key: self._column([for_seed(method.hyper[key], index) for method, index in runs])
            for key in methods[0].hyper
        }
        self.rule_hyper = {
            key: self._column([method.rule_hyper[key] for method in methods]) for key in methods[0].rule_hyper
        }
        self.checkpoints: list[Tensor] = []
        self.history, self.diverged = torch.empty(0), torch.empty(0)

    def unflatten(self, rows: Tensor) -> Parameters:
        """Views of the rows by parameter name, each (R, ...)."""
        pieces = torch.split(rows, [shape.numel() for shape in self.shapes.values()], dim=1)
        named = zip(self.shapes.items(), pieces, strict=True)
        return {key: piece.view(len(rows), *shape) for (key, shape), piece in named}

    def _column(self, values: Sequence[float | Tensor]) -> Tensor:
        if isinstance(values[0], Tensor):
            return torch.stack([torch.as_tensor(value) for value in values]).to(self.rows)
        return torch.tensor(values, dtype=self.rows.dtype, device=self.rows.device)

    def _gradients(self, x: Tensor, y: Tensor, picked: Tensor, rows: Tensor, *fixed: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (R, P) and losses (R,) of all runs; `picked` (R * B,) are the samples, B a run.

        A function of tensors only, so that it can be recorded; `fixed` are constants and hyperparameters.
        """
        loss, rule = self.runs[0][0].loss, self.runs[0][0].gradient
        names = [*self.constants, *self.hyper, *self.rule_hyper]
        borders = len(self.constants), len(self.constants) + len(self.hyper)

        def of_one(own: Parameters, x: Tensor, y: Tensor, *fixed: Tensor) -> tuple[Parameters, Tensor]:
            named = list(zip(names, fixed, strict=True))
            constants, hyper = dict(named[: borders[0]]), dict(named[borders[0] : borders[1]])

            def loss_of(parameters: Parameters, rows: slice = slice(None)) -> Tensor:
                return loss(functional_call(self.network, {**parameters, **constants}, (x[rows],)), y[rows], **hyper)

            if rule is None:
                return grad_and_value(loss_of)(own)
            return rule(loss_of, own, **dict(named[borders[1] :]))

        x_runs = x.index_select(0, picked).view(len(rows), -1, *x.shape[1:])
        y_runs = y.index_select(0, picked).view(len(rows), -1, *y.shape[1:])
        grads, losses = vmap(of_one)(self.unflatten(rows), x_runs, y_runs, *fixed)
        return torch.cat([grads[key].reshape(len(rows), -1) for key in self.shapes], dim=1), losses

    def train(self, recorded: dict[tuple[torch.Size, ...], Function]) -> None:
        """Run all epochs."""
        job = self.job
        lr = self._column([job.lr(method, index) for method, index in self.runs])[:, None]
        decays = [job.weight_decay(method) for method, _ in self.runs]
        decay = self._column(decays)[:, None] if any(decays) else None
        state = job.optimiser.state(self.rows)
        fixed = (*self.constants.values(), *self.hyper.values(), *self.rule_hyper.values())
        orders = {index: job.batches(index) for index in sorted({index for _, index in self.runs})}
        guard = _Guard(self.rows) if job.stop else None
        losses: list[Tensor] = []
        kept_at: list[int] = []
        for epoch in runtime.progress(range(job.epochs), f"training {len(self.runs)} runs"):
            self._keep(epoch, kept_at, len(losses))
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
                if guard:
                    guard.before_update(loss.isfinite())
                factor = job.schedule((epoch + number / len(picked)) / job.epochs)
                job.optimiser.update(self.rows, grad, state, len(losses), lr * factor, decay)
                if guard:
                    guard.after_update()
                elif len(losses) % CHECK_EVERY == 0:
                    self._check(losses)
        self._keep(job.epochs, kept_at, len(losses))
        sound = self.rows.isfinite().all(dim=1)  # the last update has no loss after it
        if guard:
            guard.before_update(sound)
        last = torch.where(sound, 0.0, torch.nan).to(self.rows)
        if not guard:
            self._check([*losses, last])
        self._finish(torch.stack([*losses, last], dim=1).cpu(), kept_at)

    def _keep(self, epoch: int, kept_at: list[int], step: int) -> None:
        if self.job.keeps(epoch):
            self.checkpoints.append(self.rows.clone())
            kept_at.append(step)

    def _check(self, losses: list[Tensor]) -> None:
        """Raise for the first run, if any, whose loss is not finite."""
        recent = torch.stack(losses[-2 * CHECK_EVERY :], dim=1)
        if recent.isfinite().all():
            return
        first = first_nonfinite(recent.cpu()).tolist()
        step, run = min((step, run) for run, step in enumerate(first) if step >= 0)
        method, index = self.runs[run]
        before = recent[run, max(0, step - 3) : step].tolist()
        raise runtime.NonFiniteLoss(method.name, self.job.seeds[index], len(losses) - recent.shape[1] + step, before)

    def _finish(self, losses: Tensor, kept_at: Sequence[int]) -> None:
        """History (R, T) from losses (R, T+1); what a stopped run did after its stop is taken back."""
        self.diverged, self.history = first_nonfinite(losses), losses[:, :-1].clone()
        for run, step in enumerate(self.diverged.tolist()):
            if step >= 0:
                self.history[run, step:] = torch.nan
                for checkpoint, at in zip(self.checkpoints, kept_at, strict=True):
                    if at >= step:
                        checkpoint[run] = self.rows[run]


class _Guard:
    """Holds each run at its last parameters with a finite loss, without ever waiting for the device."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.safe = rows, rows.clone()
        self.alive = torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)

    def before_update(self, finite: Tensor) -> None:
        """Note which runs have a finite loss at `rows`; the others go back and stay."""
        self.alive &= finite[:, None]
        self.rows.copy_(torch.where(self.alive, self.rows, self.safe))
        self.safe.copy_(self.rows)

    def after_update(self) -> None:
        """Undo the update of stopped runs."""
        self.rows.copy_(torch.where(self.alive, self.rows, self.safe))


def first_nonfinite(history: Tensor) -> Tensor:
    """First step of each run (R, T) that is NaN or infinite, -1 where there is none."""
    bad = ~history.isfinite()
    return torch.where(bad.any(dim=1), bad.int().argmax(dim=1), -1)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
