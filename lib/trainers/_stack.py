"""All runs of a group as one stack: `torch.func` differentiates them together, one optimiser update moves them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from lib import runtime
from lib.trainers._job import Job, Method, Parameters, Runs

CHECK_EVERY = 50
"""Steps between looks at the losses: each look waits for the device, the step that is reported is exact anyway."""
ROWS = 32
"""Runs at a time: more gain nothing once Python's overhead is shared, and outgrow the cache of a core."""


def train(job: Job, methods: Sequence[Method]) -> dict[str, Runs]:
    """Train methods with one loss function and one gradient rule, on all seeds."""
    runs = [(method, index) for method in methods for index in range(len(job.seeds))]
    rows = ROWS if job.device.type == "cpu" else len(runs)
    stacks = [_Stack(job, runs[start : start + rows]) for start in range(0, len(runs), rows)]
    for stack in stacks:
        stack.train()
    results = {}
    for number, method in enumerate(methods):
        own = slice(number * len(job.seeds), (number + 1) * len(job.seeds))

        def joined(pieces: list[Tensor], own: slice = own) -> Tensor:
            return torch.cat(pieces)[own].clone()

        template = stacks[0]
        kept = [joined(list(pieces)) for pieces in zip(*(stack.checkpoints for stack in stacks), strict=True)]
        results[method.name] = Runs(
            parameters=template.unflatten(joined([stack.rows for stack in stacks])),
            constants={key: joined([stack.constants[key] for stack in stacks]) for key in template.constants},
            history=joined([stack.history for stack in stacks]),
            checkpoints=[template.unflatten(rows) for rows in kept],
            diverged=joined([stack.diverged for stack in stacks]),
        )
    return results


class _Stack:
    """R runs in step; `rows` (R, P) holds the parameters of a run in one row, `parameters` are views of it."""

    def __init__(self, job: Job, runs: Sequence[tuple[Method, int]]) -> None:
        self.job, self.runs = job, runs
        networks = {index: job.network(job.seeds[index]) for index in sorted({index for _, index in runs})}
        self.network = next(iter(networks.values()))
        if any(getattr(part, "track_running_stats", False) for part in self.network.modules()):
            raise ValueError("batch normalisation keeps running statistics, which cannot be stacked: vectorised=False")
        each = [dict(networks[index].named_parameters()) for _, index in runs]
        trained = [key for key, value in each[0].items() if value.requires_grad]
        self.shapes = {key: each[0][key].shape for key in trained}
        self.rows = torch.stack([torch.cat([own[key].detach().flatten() for key in trained]) for own in each])
        self.parameters = self.unflatten(self.rows)
        fixed = [{**dict(networks[index].named_buffers()), **own} for own, (_, index) in zip(each, runs, strict=True)]
        self.constants = {
            key: torch.stack([own[key].detach() for own in fixed]) for key in fixed[0] if key not in trained
        }
        self.checkpoints: list[Tensor] = []
        self.history, self.diverged = torch.empty(0), torch.empty(0)

    def unflatten(self, rows: Tensor) -> Parameters:
        """Views of the rows by parameter name, each (R, ...)."""
        pieces = torch.split(rows, [shape.numel() for shape in self.shapes.values()], dim=1)
        named = zip(self.shapes.items(), pieces, strict=True)
        return {key: piece.view(len(rows), *shape) for (key, shape), piece in named}

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=self.rows.dtype, device=self.rows.device)

    def _gradients(self) -> Callable[..., tuple[Parameters, Tensor]]:
        """A function of (parameters, constants, hyper, rule_hyper, x, y) of all runs -> gradients, losses."""
        network, loss, rule = self.network, self.runs[0][0].loss, self.runs[0][0].gradient

        def of_one(
            parameters: Parameters, constants: Parameters, hyper: Any, rule_hyper: Any, x: Tensor, y: Tensor
        ) -> tuple[Parameters, Tensor]:
            def loss_of(own: Parameters) -> Tensor:
                return loss(functional_call(network, {**own, **constants}, (x,)), y, **hyper)

            if rule is None:
                return grad_and_value(loss_of)(parameters)
            return rule(loss_of, parameters, **rule_hyper)

        return vmap(of_one)

    def train(self) -> None:
        """Run all epochs."""
        job, methods = self.job, [method for method, _ in self.runs]
        hyper = {key: self._column([method.hyper[key] for method in methods]) for key in methods[0].hyper}
        rule_hyper = {
            key: self._column([method.rule_hyper[key] for method in methods]) for key in methods[0].rule_hyper
        }
        base_lr = self._column([job.lr(method) for method in methods])[:, None]
        decays = [job.weight_decay(method) for method in methods]
        decay = self._column(decays)[:, None] if any(decays) else None
        gradients, state = self._gradients(), job.optimiser.state(self.rows)
        orders = {index: job.batches(index) for index in sorted({index for _, index in self.runs})}
        guard = _Guard(self.rows) if job.stop else None
        losses: list[Tensor] = []
        kept_at: list[int] = []
        for epoch in runtime.progress(range(job.epochs + 1), f"training {len(self.runs)} runs"):
            if job.keeps(epoch):
                kept_at.append(len(losses))
                self.checkpoints.append(self.rows.clone())
            if epoch == job.epochs:
                break
            batches = {index: next(order) for index, order in orders.items()}  # each (steps, B)
            picked = torch.stack([batches[index] for _, index in self.runs], dim=1)
            steps, count = picked.shape[:2]
            for number, row in enumerate(picked.reshape(steps, -1).to(job.device)):
                x = job.x.index_select(0, row).view(count, -1, *job.x.shape[1:])
                y = job.y.index_select(0, row).view(count, -1, *job.y.shape[1:])
                grads, loss = gradients(self.parameters, self.constants, hyper, rule_hyper, x, y)
                losses.append(loss)
                if guard:
                    guard.before_update(loss.isfinite())
                flat = torch.cat([grads[key].flatten(1) for key in self.shapes], dim=1)
                factor = job.schedule((epoch + number / steps) / job.epochs)
                job.optimiser.update(self.rows, flat, state, len(losses), base_lr * factor, decay)
                if guard:
                    guard.after_update()
                elif len(losses) % CHECK_EVERY == 0:
                    self._check(losses[-2 * CHECK_EVERY :], len(losses))
        sound = self.rows.isfinite().all(dim=1)  # the last update has no loss after it
        if guard:
            guard.before_update(sound)
        else:
            losses.append(torch.where(sound, losses[-1], torch.nan))
            self._check(losses[-2 * CHECK_EVERY :], len(losses))
            losses.pop()
        self.history = torch.stack(losses, dim=1).cpu()
        self.diverged = first_nonfinite(torch.cat([self.history, torch.where(sound.cpu(), 0.0, torch.nan)[:, None]], 1))
        for run, step in enumerate(self.diverged.tolist()):
            if step >= 0:
                self.history[run, step:] = torch.nan
                for checkpoint, at in zip(self.checkpoints, kept_at, strict=True):
                    if at >= step:
                        checkpoint[run] = self.rows[run]

    def _check(self, losses: list[Tensor], end: int) -> None:
        recent = torch.stack(losses, dim=1)
        if recent.isfinite().all():
            return
        first = first_nonfinite(recent.cpu())
        run = min((step, run) for run, step in enumerate(first.tolist()) if step >= 0)[1]
        step = int(first[run])
        method, index = self.runs[run]
        before = recent[run, max(0, step - 3) : step].tolist()
        raise runtime.NonFiniteLoss(method.name, self.job.seeds[index], end - recent.shape[1] + step, before)


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
