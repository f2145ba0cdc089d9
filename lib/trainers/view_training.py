"""Training on random views of each sample: contrastive, supervised and two-branch methods, all runs as one stack.

Each step draws a batch of B samples and V views of each.  The network sees all V * B views at once, and the loss gets
its outputs with the views apart, shape (V, B, ...).  A method may have more than a loss:

- a target branch, the same network with an exponential moving average of the weights, w' <- m w' + (1 - m) w after
  each step (BYOL, MoCo; m = 1 is a frozen copy);
- a state that its loss reads and renews without a gradient (a queue, a correlation matrix, a temperature a sample).

Methods of one seed start from the same weights and see the same batches and the same views.  All runs (seeds x methods)
of one loss go through `torch.func.vmap` together, see `lib.trainers.paired`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from lib import runtime
from lib.trainers._job import ORDER, Parameters, gather, unique_names
from lib.trainers._view_stack import Snapshot, Stack, Step, ViewMethod, split_tensors
from lib.trainers.batches import shuffled
from lib.trainers.optimisers import Adam, Optimiser

__all__ = ["TrainedViews", "ViewMethod", "train_views"]

VIEWS = 2
"""Stream of a seed's generator that draws the views."""
CHECK_EVERY = 50
"""Steps between looks at the losses: each look waits for the device; the step that is reported is exact anyway."""
MAX_RUNS = 16
"""Runs at a time on a CPU: the similarity matrices of more outgrow the caches."""

View = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True)
class TrainedViews:
    """What came out; S seeds in the order given.

    Attributes:
        seeds: of the runs.
        final: method -> weights, target and state at the end, each tensor (S, ...).
        history: method -> (S, steps), the loss of each batch before its update, on the CPU.
        checkpoints: method -> snapshots, the first at the start, then every `checkpoint_every` steps.
    """

    seeds: tuple[int, ...]
    final: dict[str, Snapshot]
    history: dict[str, Tensor]
    checkpoints: dict[str, list[Snapshot]]
    _network: nn.Module = field(repr=False)
    _constants: Parameters = field(repr=False)  # (S, ...)

    @torch.no_grad()
    def outputs(
        self, method: str, x: Tensor, stage: int | None = None, snapshot: Snapshot | None = None, batch: int = 8192
    ) -> Tensor:
        """Outputs of a method's S networks, shape (S, N, ...), on the device of x.

        Args:
            method: name.
            x: (S, N, ...), inputs of each seed.
            stage: position in the tuple of outputs; None: the network returns one tensor.
            snapshot: of this method, from `checkpoints`; None: the trained network.
            batch: samples at a time.

        Raises:
            KeyError: unknown method.
            ValueError: not as many inputs as seeds.
        """
        weights = (snapshot or self.final[method]).parameters
        if len(x) != len(self.seeds):
            raise ValueError(f"x: inputs for {len(x)} seeds, trained were {len(self.seeds)}")
        home = next(iter(weights.values())).device
        rows = []
        for row in range(len(self.seeds)):
            own = {key: value[row] for key, value in {**weights, **self._constants}.items()}
            parts = [functional_call(self._network, own, (part.to(home),)) for part in torch.split(x[row], batch)]
            rows.append(torch.cat([part if stage is None else part[stage] for part in parts]))
        return torch.stack(rows).to(x.device)


def train_views(
    model_factory: Callable[[], nn.Module],
    methods: Sequence[ViewMethod],
    data: Callable[[int], tuple[Tensor, Tensor]] | tuple[Tensor, Tensor],
    views: View | Sequence[View],
    *,
    seeds: Sequence[int] = range(5),
    optimiser: Optimiser = Adam(),  # noqa: B008  (frozen)
    steps: int = 300,
    batch_size: int = 128,
    n_views: int = 2,
    schedule: Callable[[float], float] | None = None,
    device: str | torch.device = "auto",
    checkpoint_every: int | None = None,
    start: Mapping[str, Parameters] | None = None,
    max_runs: int | None = None,
) -> TrainedViews:
    """Train every method on every seed, from the same weights, with the same batches and views within a seed.

    Args:
        model_factory: builds an untrained network; called once a seed with torch's generator seeded by it.
        methods: what is compared; those with the same loss and names of hyperparameters form a stack.
        data: (x, y) for all seeds, or ``data(seed)`` with arrays of the same shapes for every seed; y may have any
            shape (N, ...) and reaches the loss as it is.
        views: ``view(x, generator)`` gives one view of each sample (see `lib.augment.Views`), or one such function
            for each view.
        seeds: of the runs: initialisation, order of the data, views.
        optimiser: `SGD`, `Adam` or `AdamW`.
        steps: updates; every epoch has a new order and new views, and its incomplete last batch is dropped.
        batch_size: samples a step (before views); at most the number of samples is taken.
        n_views: V, where `views` is one function.
        schedule: factor of the learning rate by the share of training done, in [0, 1).
        device: see `lib.runtime.device`.
        checkpoint_every: steps between snapshots.
        start: method -> weights (S, ...) to begin with instead of the initialisation, e.g. those of an earlier stage.
        max_runs: in one stack, by default 16 on a CPU and all on a GPU; 1 trains without `vmap`, for networks that
            do not fit it.  (Batch normalisation must not keep running statistics.)

    Raises:
        NonFiniteLoss: a loss is not finite.
        ValueError: method names not unique, no step or seed, data of different shapes, or running statistics.
    """
    names = unique_names(methods)
    if steps < 1 or not seeds:
        raise ValueError(f"need at least one step and one seed, got {steps} and {list(seeds)}")
    where = runtime.device(str(device))
    x, y, labels = gather(data, seeds, where)
    networks = []
    for seed in seeds:
        with runtime.isolated(seed):
            networks.append(model_factory().to(where).train())
    if any(getattr(part, "track_running_stats", False) for part in networks[0].modules()):
        raise ValueError("batch normalisation keeps running statistics; see torch.func.replace_all_batch_norm_modules_")
    branches = [views] * n_views if callable(views) else list(views)
    limit = max_runs or (MAX_RUNS if where.type == "cpu" else len(seeds) * len(methods))
    stacks = []
    for group in _groups(methods):
        state = group[0].state(runtime.generator(0)) if group[0].state else {}
        step = Step(networks[0], group[0], list(state), len(branches), steps)
        runs = [(method, index) for method in group for index in range(len(seeds))]
        size = -(-len(runs) // -(-len(runs) // limit))
        for first in range(0, len(runs), size):
            stacks.append(Stack(step, networks, runs[first : first + size], seeds, optimiser, start or {}))
    batches = _batches(x, y, seeds, len(labels), branches, batch_size)
    snapshots = []
    for number in runtime.progress(range(steps), f"training {sum(len(stack.runs) for stack in stacks)} runs"):
        if checkpoint_every is not None and number % checkpoint_every == 0:
            snapshots.append({name: _joined(stacks, name) for name in names})
        seen, labelled = next(batches)
        for stack in stacks:
            stack.update(seen, labelled, schedule(number / steps) if schedule else 1.0)
        if (number + 1) % CHECK_EVERY == 0 or number + 1 == steps:
            for stack in stacks:
                stack.check()
    final = {name: _joined(stacks, name) for name in names}
    if checkpoint_every is not None and steps % checkpoint_every == 0:
        snapshots.append(final)
    constants = [split_tensors(network)[1] for network in networks]
    return TrainedViews(
        seeds=tuple(seeds),
        final=final,
        history={name: torch.cat([stack.history(name) for stack in stacks]) for name in names},
        checkpoints={name: [snapshot[name] for snapshot in snapshots] for name in names},
        _network=networks[0].eval(),
        _constants={key: torch.stack([own[key] for own in constants]) for key in constants[0]},
    )


def _joined(stacks: Sequence[Stack], name: str) -> Snapshot:
    """One method, out of the stacks that hold its runs."""
    parts = [stack.snapshot(name) for stack in stacks if stack.holds(name)]

    def joined(field: str) -> dict[str, Tensor]:
        return {key: torch.cat([getattr(part, field)[key] for part in parts]) for key in getattr(parts[0], field)}

    return Snapshot(joined("parameters"), joined("target"), joined("state"))


def _groups(methods: Sequence[ViewMethod]) -> list[list[ViewMethod]]:
    groups: dict[tuple[object, ...], list[ViewMethod]] = {}
    for method in methods:
        key = (id(method.loss), tuple(sorted(method.hyper)), method.momentum is None, id(method.state))
        groups.setdefault(key, []).append(method)
    return list(groups.values())


def _batches(
    x: Tensor, y: Tensor, seeds: Sequence[int], data_sets: int, views: Sequence[View], batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end: views (S, V*B, ...), view after view, and labels (S, B, ...) of the next step."""
    count = len(x) // data_sets
    sampler = shuffled(batch_size)
    orders = [runtime.generator(seed, stream=ORDER) for seed in seeds]
    draws = [runtime.generator(seed, x.device, stream=VIEWS) for seed in seeds]
    everything = torch.arange(count)
    while True:
        seen, labelled = [], []
        for index, (order, draw) in enumerate(zip(orders, draws, strict=True)):
            picked = sampler(everything, order).to(x.device) + (index * count if data_sets > 1 else 0)
            samples = x[picked.flatten()]
            made = torch.stack([view(samples, draw) for view in views])  # (V, steps * B, ...)
            apart = made.view(len(views), *picked.shape, *made.shape[2:]).transpose(0, 1)  # (steps, V, B, ...)
            seen.append(apart.flatten(1, 2))
            labelled.append(y[picked])
        yield from zip(torch.stack(seen, dim=1), torch.stack(labelled, dim=1), strict=True)
