"""Training on random views whose targets are made anew on the way, from the features that the network has by then.

The loop of `lib.trainers.train_views` (same initialisation, batches and views within a seed, all runs as a stack) for
methods that cluster their own features every few epochs: subclasses, pseudo-labels, prototypes.  Targets then differ
from method to method and from seed to seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from lib import runtime
from lib.trainers._job import ORDER, gather
from lib.trainers._view_stack import Stack, Step, ViewMethod, split_tensors
from lib.trainers.batches import shuffled
from lib.trainers.optimisers import Adam, Optimiser
from lib.trainers.view_training import CHECK_EVERY, MAX_RUNS, VIEWS, TrainedViews, _groups, _joined

__all__ = ["train_relabelled"]

Relabel = Callable[[str, int, int, Tensor, Tensor], Tensor]


def train_relabelled(
    model_factory: Callable[[], nn.Module],
    methods: Sequence[ViewMethod],
    data: Callable[[int], tuple[Tensor, Tensor]],
    view: Callable[[Tensor, Generator], Tensor],
    relabel: Relabel,
    *,
    clean: Callable[[Tensor], Tensor] = lambda x: x,
    stage: int = -1,
    every: int = 10,
    seeds: Sequence[int] = range(5),
    optimiser: Optimiser = Adam(),  # noqa: B008  (frozen)
    epochs: int = 60,
    batch_size: int = 128,
    n_views: int = 2,
    schedule: Callable[[float], float] | None = None,
    device: str | torch.device = "auto",
) -> TrainedViews:
    """Train every method on every seed, with targets from ``relabel`` before the first epoch and every few epochs.

    Args:
        model_factory: builds an untrained network that returns a tuple of outputs.
        methods: what is compared, without state or target branch; their losses get what `relabel` made as y.
        data: ``data(seed)``, inputs (N, ...) and labels (N,) of the same shapes for every seed.
        view: ``view(x, generator)`` makes one view of each sample.
        relabel: ``relabel(method, seed, epoch, features, y) -> (N, ...)`` with features (N, d) of the clean samples by
            the network of that run, without gradient, and the labels (N,).
        clean: from the inputs to what the network sees without views.
        stage: position, among the network's outputs, of the features.
        every: epochs between two calls.
        seeds: of the runs: initialisation, order of the data, views.
        optimiser: `SGD`, `Adam` or `AdamW`.
        epochs: passes over the data; the incomplete last batch of each is dropped.
        batch_size: samples a step (before views).
        n_views: views of each sample.
        schedule: factor of the learning rate by the share of training done.
        device: see `lib.runtime.device`.

    Raises:
        NonFiniteLoss: a loss is not finite.
        ValueError: names not unique, no epoch or seed, methods with a state or a target branch, running statistics.
    """
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"need methods with unique names, got {names}")
    if epochs < 1 or every < 1 or not seeds:
        raise ValueError(f"need an epoch, a period and a seed, got {epochs}, {every} and {list(seeds)}")
    if any(method.state is not None or method.momentum is not None for method in methods):
        raise ValueError("methods with a state or a target branch: see train_views")
    where = runtime.device(str(device))
    x, _, labels = gather(data, seeds, where)
    count = len(labels[0])
    networks = []
    for seed in seeds:
        with runtime.isolated(seed):
            networks.append(model_factory().to(where).train())
    if any(getattr(part, "track_running_stats", False) for part in networks[0].modules()):
        raise ValueError("batch normalisation keeps running statistics; see torch.func.replace_all_batch_norm_modules_")
    per_epoch = count // min(batch_size, count)
    limit = MAX_RUNS if where.type == "cpu" else len(seeds) * len(methods)
    stacks = []
    for group in _groups(methods):
        step = Step(networks[0], group[0], [], n_views, epochs * per_epoch)
        runs = [(method, index) for method in group for index in range(len(seeds))]
        size = -(-len(runs) // -(-len(runs) // limit))
        for first in range(0, len(runs), size):
            stacks.append(Stack(step, networks, runs[first : first + size], seeds, optimiser, {}))
    samples = x.view(len(seeds), count, *x.shape[1:])
    orders = [runtime.generator(seed, stream=ORDER) for seed in seeds]
    draws = [runtime.generator(seed, where, stream=VIEWS) for seed in seeds]
    sampler, targets = shuffled(batch_size), list[Tensor]()
    for epoch in runtime.progress(range(epochs), f"training {len(seeds) * len(methods)} runs"):
        if epoch % every == 0:
            targets = [_targets(stack, networks[0], clean, samples, labels, relabel, epoch, stage) for stack in stacks]
        picked = torch.stack([sampler(labels[0], order) for order in orders]).to(where)  # (S, steps, B)
        seen = []
        for own, rows, draw in zip(samples, picked, draws, strict=True):
            made = torch.stack([view(own[rows.flatten()], draw) for _ in range(n_views)])
            apart = made.view(n_views, *rows.shape, *made.shape[2:]).transpose(0, 1)  # (steps, V, B, ...)
            seen.append(apart.flatten(1, 2))
        batches = torch.stack(seen, dim=1)  # (steps, S, V * B, ...)
        for number, batch in enumerate(batches):
            factor = schedule((epoch + number / per_epoch) / epochs) if schedule else 1.0
            for stack, target in zip(stacks, targets, strict=True):
                rows = picked[stack.index, number]
                y = target[torch.arange(len(rows), device=where)[:, None], rows]
                _update(stack, batch[stack.index], y, factor)
        if (epoch + 1) % max(1, CHECK_EVERY // per_epoch) == 0 or epoch + 1 == epochs:
            for stack in stacks:
                stack.check()
    constants = [split_tensors(network)[1] for network in networks]
    return TrainedViews(
        seeds=tuple(seeds),
        final={name: _joined(stacks, name) for name in names},
        history={name: torch.cat([stack.history(name) for stack in stacks]) for name in names},
        checkpoints={name: [] for name in names},
        _network=networks[0].eval(),
        _constants={key: torch.stack([own[key] for own in constants]) for key in constants[0]},
    )


def _update(stack: Stack, x: Tensor, y: Tensor, factor: float) -> None:
    """`Stack.update` with targets of their own for each run, (R, B, ...)."""
    grad, loss = stack.step(x, y, stack.rows, stack.target, *stack.constants, *stack.hyper)
    stack.losses.append(loss)
    stack.optimiser.update(stack.rows, grad, stack.memory, len(stack.losses), stack.lr * factor, stack.decay)


@torch.no_grad()
def _targets(
    stack: Stack,
    network: nn.Module,
    clean: Callable[[Tensor], Tensor],
    samples: Tensor,
    labels: Sequence[Tensor],
    relabel: Relabel,
    epoch: int,
    stage: int,
) -> Tensor:
    """Targets (R, N, ...) of all runs of a stack."""
    weights, made = stack.step.unflatten(stack.rows), []
    for row, (method, index) in enumerate(stack.runs):
        own = {key: value[row] for key, value in weights.items()}
        own |= {key: value[row] for key, value in zip(stack.step.constants, stack.constants, strict=True)}
        features = functional_call(network, own, (clean(samples[index]),))[stage]
        y = labels[index].to(samples.device)
        made.append(relabel(method.name, stack.seeds[index], epoch, features, y).to(samples.device))
    return torch.stack(made)
