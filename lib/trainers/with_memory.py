"""Paired training with a memory: losses that keep something about every training sample between its visits.

The loop of `train_paired`, stacked over seeds and methods in the same way, for methods that need to know *which*
samples a batch holds: running targets (early-learning regularisation), sums of margins over the epochs (AUM), or
labels that are corrected on the way.  The share of training done is handed to the loss too, for schedules such as the
forget rate of co-teaching; a pair of networks is one module whose output has a dimension for the networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from lib import runtime
from lib.trainers._job import Job, Parameters, prepare, unique_names
from lib.trainers._trace import Function, record
from lib.trainers.batches import Sampler, shuffled
from lib.trainers.optimisers import SGD, Optimiser
from lib.trainers.paired import Trained

__all__ = ["MemoryMethod", "MemoryTrained", "checkpoint_outputs", "train_with_memory"]


@dataclass(frozen=True)
class MemoryMethod:
    """One method under comparison.

    Args:
        name: unique within the comparison.
        loss: ``loss(output, y, memory, share, **hyper) -> (scalar, memory)``, pure.  `memory` (B, ...) is that of the
            batch's samples, what is returned replaces it (no gradient flows between steps); `share` in [0, 1) is the
            share of training done, shape ().
        hyper: numbers handed to the loss, as tensors of shape ().
        shape: of one sample's memory; it starts at 0, in the type of the parameters.
        lr: overrides the optimiser's learning rate.
        weight_decay: overrides the optimiser's weight decay.
    """

    name: str
    loss: Callable[..., tuple[Tensor, Tensor]]
    hyper: Mapping[str, float] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    lr: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True)
class MemoryTrained:
    """What came out.

    Attributes:
        trained: parameters, histories and checkpoints (see `lib.trainers.Trained`).
        memory: method -> (S, N, ...) at the end, N training samples in the order of the data.
        memories: method -> the same at each checkpoint.
    """

    trained: Trained
    memory: dict[str, Tensor]
    memories: dict[str, list[Tensor]]


@torch.no_grad()
def checkpoint_outputs(trained: Trained, name: str, x: Tensor, batch: int = 8192) -> Tensor:
    """Outputs of a method's S networks at all K checkpoints, also those of `train_paired`.

    Args:
        trained: with checkpoints.
        name: of the method.
        x: inputs of each seed, shape (S, N, ...).
        batch: samples at a time.

    Returns:
        Shape (K, S, N, C), on the device of x.

    Raises:
        ValueError: no checkpoints were kept, or x is not for S seeds.
    """
    kept = trained.checkpoints[name]
    if not kept or len(x) != len(trained.seeds):
        raise ValueError(f"{len(kept)} checkpoints; x for {len(x)} of {len(trained.seeds)} seeds")
    home = next(iter(kept[0].values())).device
    with runtime.isolated(0):  # every value is replaced below
        module = trained._factory().to(home).eval()
    call = vmap(lambda own, fixed, inputs: functional_call(module, {**own, **fixed}, (inputs,)))
    outputs = [
        torch.cat(
            [call(own, trained.constants[name], part.to(home)).to(x.device) for part in torch.split(x, batch, dim=1)], 1
        )
        for own in kept
    ]
    return torch.stack(outputs)


def train_with_memory(
    model_factory: Callable[[], nn.Module],
    methods: Sequence[MemoryMethod],
    data: Callable[[int], tuple[Tensor, Tensor]] | tuple[Tensor, Tensor],
    *,
    seeds: Sequence[int] = range(10),
    optimiser: Optimiser = SGD(),  # noqa: B008  (frozen)
    epochs: int = 30,
    batch_size: int = 64,
    sampler: Sampler | None = None,
    schedule: Callable[[float], float] | None = None,
    device: str | torch.device = "auto",
    checkpoint_every: int | None = None,
) -> MemoryTrained:
    """Train every method on every seed, from the same initialisation and with the same batches within a seed.

    A batch must not hold a sample twice (two visits in one step would overwrite each other's memory).

    Args:
        model_factory: builds an untrained network without batch statistics or dropout.
        methods: what is compared; those with one loss, one shape and the same names of hyperparameters form a stack.
        data: (x, y) for all seeds, or ``data(seed)``; y may have further columns, e.g. the soft labels of a sample.
        seeds: of the runs: initialisation and order of the data.
        optimiser: `SGD`, `Adam` or `AdamW`.
        epochs: passes over the data.
        batch_size: of the default sampler, which drops an incomplete last batch.
        sampler: another choice of batches.
        schedule: factor of the learning rate by the share of training done.
        device: see `lib.runtime.device`.
        checkpoint_every: epochs between checkpoints of parameters and memories, the first at initialisation.

    Raises:
        NonFiniteLoss: a run's loss or last parameters are not finite.
        ValueError: names not unique, no epochs or seeds, data of different shapes, batch normalisation.
    """
    names = unique_names(methods)
    job = prepare(
        model_factory,
        data,
        seeds,
        optimiser,
        epochs,
        sampler or shuffled(batch_size),
        schedule,
        device,
        checkpoint_every,
    )
    groups: dict[object, list[MemoryMethod]] = {}
    for method in methods:
        groups.setdefault((id(method.loss), method.shape, tuple(sorted(method.hyper))), []).append(method)
    stacks = {method.name: (stack, row) for stack, row, method in _train_groups(job, list(groups.values()))}
    runs = {name: slice(stacks[name][1], stacks[name][1] + len(job.seeds)) for name in names}
    own = {name: stacks[name][0] for name in names}
    trained = Trained(
        seeds=job.seeds,
        parameters={name: {k: v[runs[name]] for k, v in own[name].parameters().items()} for name in names},
        constants={name: {k: v[runs[name]] for k, v in own[name].constants.items()} for name in names},
        history={name: own[name].history[runs[name]] for name in names},
        checkpoints={
            name: [{k: v[runs[name]] for k, v in own[name].unflatten(rows).items()} for rows, _ in own[name].kept]
            for name in names
        },
        diverged={name: torch.full((len(job.seeds),), -1) for name in names},
        _factory=model_factory,
        _sample_ndim=job.x.ndim - 1,
    )
    return MemoryTrained(
        trained,
        memory={name: own[name].memory[runs[name]] for name in names},
        memories={name: [memory[runs[name]] for _, memory in own[name].kept] for name in names},
    )


def _train_groups(job: Job, groups: list[list[MemoryMethod]]) -> list[tuple[_Stack, int, MemoryMethod]]:
    found = []
    for group in groups:
        stack = _Stack(job, group)
        stack.train()
        found += [(stack, number * len(job.seeds), method) for number, method in enumerate(group)]
    return found


class _Stack:
    """R runs in step (method by method, each on all seeds); `rows` (R, P) holds the parameters of a run in one row."""

    def __init__(self, job: Job, methods: Sequence[MemoryMethod]) -> None:
        self.job, self.methods = job, methods
        networks = [job.network(seed) for seed in job.seeds]
        self.network = networks[0]
        if any(getattr(part, "track_running_stats", False) for part in self.network.modules()):
            raise ValueError("batch normalisation keeps running statistics, which cannot be stacked")
        named = [dict(network.named_parameters()) for network in networks]
        self.shapes = {key: value.shape for key, value in named[0].items()}
        one = torch.stack([torch.cat([own[key].detach().flatten() for key in self.shapes]) for own in named])
        buffers = [dict(network.named_buffers()) for network in networks]
        self.rows = one.repeat(len(methods), 1)
        self.constants = {
            key: torch.stack([own[key] for own in buffers] * len(methods)) for key in buffers[0] if methods
        }
        samples = len(job.labels[0])
        self.memory = self.rows.new_zeros(len(self.rows), samples, *methods[0].shape)
        self.hyper = {
            key: self._column([method.hyper[key] for method in methods]).squeeze(1) for key in methods[0].hyper
        }
        self.history = torch.empty(0)
        self.kept: list[tuple[Tensor, Tensor]] = []

    def parameters(self) -> Parameters:
        """All runs' parameters by name, each (R, ...)."""
        return self.unflatten(self.rows)

    def unflatten(self, rows: Tensor) -> Parameters:
        """Views of the rows by parameter name."""
        pieces = torch.split(rows, [shape.numel() for shape in self.shapes.values()], dim=1)
        return {
            key: piece.view(len(rows), *shape) for (key, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def _column(self, values: Sequence[float]) -> Tensor:
        """One value a method as (R, 1)."""
        column = torch.tensor(values, dtype=self.rows.dtype, device=self.rows.device)
        return column.repeat_interleave(len(self.job.seeds))[:, None]

    def _step(
        self, x: Tensor, y: Tensor, picked: Tensor, memory: Tensor, share: Tensor, rows: Tensor, *fixed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients (R, P), losses (R,) and new memories (R, B, ...); a function of tensors, so it can be recorded."""
        loss = self.methods[0].loss
        names, buffers = [*self.constants, *self.hyper], len(self.constants)

        def of_one(own: Parameters, x: Tensor, y: Tensor, memory: Tensor, *fixed: Tensor) -> tuple[Parameters, Tensor]:
            values = list(zip(names, fixed, strict=True))

            def loss_of(parameters: Parameters) -> tuple[Tensor, Tensor]:
                output = functional_call(self.network, {**parameters, **dict(values[:buffers])}, (x,))
                return loss(output, y, memory, share, **dict(values[buffers:]))

            return grad_and_value(loss_of, has_aux=True)(own)  # type: ignore[return-value]

        x_runs = x.index_select(0, picked.flatten()).view(*picked.shape, *x.shape[1:])
        y_runs = y.index_select(0, picked.flatten()).view(*picked.shape, *y.shape[1:])
        grads, (losses, after) = vmap(of_one)(self.unflatten(rows), x_runs, y_runs, memory, *fixed)
        return torch.cat([grads[key].reshape(len(rows), -1) for key in self.shapes], dim=1), losses, after.detach()

    def train(self) -> None:
        """Run all epochs."""
        job, runs = self.job, len(self.rows)
        lr = self._column([job.optimiser.lr if m.lr is None else m.lr for m in self.methods])
        decays = [job.optimiser.weight_decay if m.weight_decay is None else m.weight_decay for m in self.methods]
        decay = self._column(decays) if any(decays) else None
        state = job.optimiser.state(self.rows)
        fixed = (*self.constants.values(), *self.hyper.values())
        orders = [job.batches(index) for index in range(len(job.seeds))]
        # Rows of x by data set; without the offset of the set they are positions in the memory.
        offsets = torch.arange(len(job.seeds)) * (len(job.labels[0]) if len(job.labels) > 1 else 0)
        offsets = offsets.to(job.device)[:, None]
        every_run = torch.arange(runs, device=job.device)[:, None]
        share = torch.zeros((), dtype=self.rows.dtype, device=job.device)
        step: Function = self._step
        losses: list[Tensor] = []
        for epoch in runtime.progress(range(job.epochs), f"training {runs} runs"):
            if job.keeps(epoch):
                self.kept.append((self.rows.clone(), self.memory.clone()))
            batches = torch.stack([next(order) for order in orders], dim=1).to(job.device)  # (steps, S, B)
            for number, seen in enumerate(batches):
                picked, place = (part.repeat(len(self.methods), 1) for part in (seen, seen - offsets))
                share.fill_((epoch + number / len(batches)) / job.epochs)
                args = (job.x, job.y, picked, self.memory[every_run, place], share, self.rows, *fixed)
                if not losses:
                    step = record(self._step, args)
                grad, loss, after = step(*args)
                self.memory[every_run, place] = after
                losses.append(loss)
                job.optimiser.update(self.rows, grad, state, len(losses), lr * job.schedule(float(share)), decay)
        if job.keeps(job.epochs):
            self.kept.append((self.rows.clone(), self.memory.clone()))
        last = torch.where(self.rows.isfinite().all(1), 0.0, torch.nan).to(self.rows)
        self._check(torch.stack([*losses, last], dim=1).cpu())

    def _check(self, losses: Tensor) -> None:
        """Keep the history; raise for the first run, if any, whose loss is not finite."""
        bad = ~losses.isfinite()
        if bad.any():
            step = int(bad.any(0).int().argmax())
            run = int(bad[:, step].int().argmax())
            method, seed = divmod(run, len(self.job.seeds))
            before = losses[run, max(0, step - 3) : step].tolist()
            raise runtime.NonFiniteLoss(self.methods[method].name, self.job.seeds[seed], step, before)
        self.history = losses[:, :-1]
