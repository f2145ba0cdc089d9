"""One run after the other, as anybody would write it: autograd and `torch.optim`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lib import runtime
from lib.trainers._job import Job, Method, Parameters, Runs, for_seed


def train(job: Job, methods: Sequence[Method]) -> dict[str, Runs]:
    """Train each method on each seed."""
    results = {}
    for method in methods:
        runs = [_run(job, method, index) for index in runtime.progress(range(len(job.seeds)), method.name)]
        results[method.name] = Runs(
            parameters=_stacked([run[0] for run in runs]),
            constants=_stacked([run[1] for run in runs]),
            history=torch.stack([run[2] for run in runs]),
            checkpoints=[_stacked(list(column)) for column in zip(*(run[3] for run in runs), strict=True)],
            diverged=torch.tensor([run[4] for run in runs]),
        )
    return results


def _run(job: Job, method: Method, index: int) -> tuple[Parameters, Parameters, Tensor, list[Parameters], int]:
    seed = job.seeds[index]
    network = job.network(seed)
    trained = {key: value for key, value in network.named_parameters() if value.requires_grad}
    base_lr = job.lr(method, index)
    method = replace(method, hyper={key: for_seed(value, index) for key, value in method.hyper.items()})
    optimiser = job.optimiser.torch(trained.values(), base_lr, job.weight_decay(method))
    history: list[float] = []
    checkpoints: dict[int, Parameters] = {}  # by the step that they are taken before
    state = {**trained, **dict(network.named_buffers())}
    safe, diverged = _copy(state), -1
    for epoch, batches in enumerate(job.batches(index)):
        if job.keeps(epoch):
            checkpoints[len(history)] = _copy(trained)
        for number, rows in enumerate(batches.to(job.device)):
            if diverged >= 0:
                history.append(math.nan)
                continue
            x, y = job.x[rows], job.y[rows]
            loss = _gradients(network, trained, method, x, y)
            history.append(float(loss))
            if not math.isfinite(history[-1]):
                diverged = _stop(job, method, seed, history[:-1])
                _restore(state, safe)
                continue
            if job.stop:
                safe = _copy(state)
            optimiser.param_groups[0]["lr"] = base_lr * job.schedule((epoch + number / len(batches)) / job.epochs)
            optimiser.step()
    if diverged < 0 and not all(bool(value.isfinite().all()) for value in trained.values()):
        diverged = _stop(job, method, seed, history)
        _restore(state, safe)
    if job.keeps(job.epochs):
        checkpoints[len(history)] = _copy(trained)
    if diverged >= 0:
        checkpoints = {step: kept if step < diverged else _copy(trained) for step, kept in checkpoints.items()}
    fixed = {**dict(network.named_buffers()), **dict(network.named_parameters())}
    constants = {key: value.detach().clone() for key, value in fixed.items() if key not in trained}
    losses = torch.tensor(history, dtype=next(iter(trained.values())).dtype)
    losses[diverged if diverged >= 0 else len(losses) :] = math.nan
    return _copy(trained), constants, losses, list(checkpoints.values()), diverged


def _gradients(network: nn.Module, trained: Mapping[str, Tensor], method: Method, x: Tensor, y: Tensor) -> Tensor:
    """Put the gradients where the optimiser looks for them; returns the loss."""
    if method.gradient is None:
        for value in trained.values():
            value.grad = None
        loss = method.loss(network(x), y, **method.hyper)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def loss_of(own: Parameters, rows: slice = slice(None)) -> Tensor:
        return method.loss(functional_call(network, own, (x[rows],)), y[rows], **method.hyper)

    grads, loss = method.gradient(loss_of, {key: value.detach() for key, value in trained.items()}, **method.rule_hyper)
    for key, value in trained.items():
        value.grad = grads[key].detach()
    return loss.detach()


def _stop(job: Job, method: Method, seed: int, history: list[float]) -> int:
    if not job.stop:
        raise runtime.NonFiniteLoss(method.name, seed, len(history), history[-3:])
    return len(history)


def _copy(parameters: Mapping[str, Tensor]) -> Parameters:
    return {key: value.detach().clone() for key, value in parameters.items()}


@torch.no_grad()
def _restore(parameters: Mapping[str, Tensor], saved: Parameters) -> None:
    for key, value in parameters.items():
        value.copy_(saved[key])


def _stacked(rows: list[Parameters]) -> Parameters:
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
