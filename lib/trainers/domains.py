"""Training on several domains at once, all runs (seeds x methods) in one stack.

A step draws one batch from every domain.  The objective sees the batches and the stages of the network by name, so it
can put anything between them: a gradient reversal, a distance between features, a head for each domain.  Domain
adaptation has a labelled source and an unlabelled target, domain generalisation several labelled sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from lib import runtime
from lib.trainers._trace import Function, record
from lib.trainers.optimisers import SGD, Optimiser
from lib.trainers.paired import Trained

__all__ = ["DomainData", "DomainMethod", "stage_outputs", "train_domains"]

DomainData = Callable[[int], Sequence[tuple[Tensor, Tensor]]]
"""``data(seed)`` -> (x, y) of each domain; labels of an unlabelled domain are whatever, the objective must not look."""
Parameters = dict[str, Tensor]
ORDER = 1


@dataclass(frozen=True)
class DomainMethod:
    """One method under comparison.

    Args:
        name: unique within the comparison.
        objective: ``objective(net, batches, share, **hyper)``: a scalar, or a tuple of scalars that are summed.
            ``net("features", x)`` calls a stage (a child of the network) of the run; `batches` holds (x, y) a domain;
            `share` in [0, 1) is the share of training done.
        hyper: numbers handed to the objective, as tensors of shape ().
        lr: overrides the optimiser's learning rate.
        data: overrides the data, with the same shapes (e.g. an upper bound that is given the target's labels).
        gradient: replaces plain differentiation: ``rule(parts_of, params, **rule_hyper) -> (gradients, loss)`` with
            ``parts_of(params)`` the objective as it is (so a rule can treat its parts differently).
        rule_hyper: numbers handed to `gradient`.
    """

    name: str
    objective: Callable[..., Any]
    hyper: Mapping[str, float] = field(default_factory=dict)
    lr: float | None = None
    data: DomainData | None = None
    gradient: Callable[..., tuple[Parameters, Tensor]] | None = None
    rule_hyper: Mapping[str, float] = field(default_factory=dict)


def train_domains(
    model_factory: Callable[[], nn.Module],
    methods: Sequence[DomainMethod],
    data: DomainData,
    *,
    seeds: Sequence[int] = range(10),
    optimiser: Optimiser = SGD(),  # noqa: B008  (frozen)
    epochs: int = 25,
    batch_size: int = 64,
    schedule: Callable[[float], float] | None = None,
    device: str | torch.device = "auto",
) -> Trained:
    """Train every method on every seed, from the same initialisation and with the same batches within a seed.

    An epoch is one pass over the first domain; smaller domains start over, larger ones are used in part (in the next
    epoch in another order).  Incomplete last batches are dropped.

    Args:
        model_factory: builds an untrained network of named children ("stages") without batch statistics or dropout;
            its `forward` is what `Trained.logits` calls.
        methods: what is compared; those with one objective, one rule and the same names of numbers form a stack.
        data: what they train on.
        seeds: of the runs: initialisation and order of the data.
        optimiser: `SGD`, `Adam` or `AdamW`.
        epochs: passes over the first domain.
        batch_size: samples of each domain in a step.
        schedule: factor of the learning rate by the share of training done.
        device: see `lib.runtime.device`.

    Returns:
        As `train_paired`, without checkpoints; `history` is the sum of the objective's parts.

    Raises:
        NonFiniteLoss: a run's loss or last parameters are not finite.
        ValueError: names not unique, no epochs or seeds, a domain smaller than a batch, shapes that differ.
    """
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names) or epochs < 1 or not seeds:
        raise ValueError(f"need unique names, epochs and seeds; got {names}, {epochs}, {list(seeds)}")
    where = runtime.device(str(device))
    factor = schedule or (lambda share: 1.0)
    groups: dict[object, list[DomainMethod]] = {}
    for method in methods:
        key = id(method.objective), id(method.gradient), tuple(sorted(method.hyper)), tuple(sorted(method.rule_hyper))
        groups.setdefault(key, []).append(method)
    parameters, history = {}, {}
    constants: dict[str, Parameters] = {}
    for group in groups.values():
        stack = _Stack(model_factory, group, data, tuple(seeds), where)
        losses = stack.train(optimiser, epochs, batch_size, factor)
        for number, method in enumerate(group):
            rows = slice(number * len(seeds), (number + 1) * len(seeds))
            parameters[method.name] = {key: value[rows] for key, value in stack.unflatten(stack.rows).items()}
            history[method.name] = losses[rows]
            constants[method.name] = {key: value[rows] for key, value in stack.constants.items()}
    return Trained(
        seeds=tuple(seeds),
        parameters={name: parameters[name] for name in names},
        constants={name: constants[name] for name in names},
        history={name: history[name] for name in names},
        checkpoints={name: [] for name in names},
        diverged={name: torch.full((len(seeds),), -1) for name in names},
        _factory=model_factory,
        _sample_ndim=data(seeds[0])[0][0].ndim - 1,
    )


@torch.no_grad()
def stage_outputs(trained: Trained, name: str, stages: Sequence[str], x: Tensor) -> Tensor:
    """What the stages, one after the other, make of x in each of the S networks of a method.

    Args:
        trained: of `train_domains`.
        name: of the method.
        stages: e.g. ``["features"]``.
        x: inputs of each seed, shape (S, N, ...).

    Returns:
        Shape (S, N, ...), on the device of x.
    """
    home = next(iter(trained.parameters[name].values())).device
    with runtime.isolated(0):  # every value is replaced below
        module = trained._factory().to(home).eval()

    def through(own: Parameters, inputs: Tensor) -> Tensor:
        net = _stages(module, own)
        for stage in stages:
            inputs = net(stage, inputs)
        return inputs

    return vmap(through)({**trained.parameters[name], **trained.constants[name]}, x.to(home)).to(x.device)


def _stages(network: nn.Module, values: Mapping[str, Tensor]) -> Callable[..., Tensor]:
    """``net(stage, *inputs)`` with these parameters and buffers."""

    def net(stage: str, *inputs: Tensor) -> Tensor:
        own = {key.removeprefix(f"{stage}."): value for key, value in values.items() if key.startswith(f"{stage}.")}
        return functional_call(network.get_submodule(stage), own, inputs)  # type: ignore[no-any-return]

    return net


class _Stack:
    """R runs in step (method by method, each on all seeds); `rows` (R, P) holds the parameters of a run in one row."""

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        methods: Sequence[DomainMethod],
        data: DomainData,
        seeds: tuple[int, ...],
        device: torch.device,
    ) -> None:
        self.methods, self.seeds, self.device = methods, seeds, device
        networks = []
        for seed in seeds:
            with runtime.isolated(seed):
                networks.append(factory().to(device).train())
        self.network = networks[0]
        if any(getattr(part, "track_running_stats", False) for part in self.network.modules()):
            raise ValueError("batch normalisation keeps running statistics, which cannot be stacked")
        named = [dict(network.named_parameters()) for network in networks]
        self.shapes = {key: value.shape for key, value in named[0].items()}
        one = torch.stack([torch.cat([own[key].detach().flatten() for key in self.shapes]) for own in named])
        self.rows = one.repeat(len(methods), 1)
        buffers = [dict(network.named_buffers()) for network in networks]
        self.constants = {key: torch.stack([own[key] for own in buffers] * len(methods)) for key in buffers[0]}
        self.hyper = {key: self._column([m.hyper[key] for m in methods])[:, 0] for key in methods[0].hyper}
        self.rule_hyper = {
            key: self._column([m.rule_hyper[key] for m in methods])[:, 0] for key in methods[0].rule_hyper
        }
        self._gather(data)

    def _gather(self, data: DomainData) -> None:
        """`x[d]`, `y[d]`: the data sets of domain d below each other; `first` (R,): the set of each run."""
        sources = [method.data or data for method in self.methods]
        distinct = list(dict.fromkeys(sources))
        sets = [source(seed) for source in distinct for seed in self.seeds]
        shapes = [[(part_x.shape, part_y.shape) for part_x, part_y in domains] for domains in sets]
        if any(shape != shapes[0] for shape in shapes) or any(len(x) != len(y) for x, y in sets[0]):
            raise ValueError("data: every seed and method needs domains of the same shapes, a label a sample")
        self.x = [torch.cat([domains[d][0] for domains in sets]).to(self.device) for d in range(len(sets[0]))]
        self.y = [torch.cat([domains[d][1] for domains in sets]).to(self.device) for d in range(len(sets[0]))]
        self.sizes = [len(x) for x, _ in sets[0]]
        self.first = torch.tensor(
            [distinct.index(s) * len(self.seeds) + i for s in sources for i in range(len(self.seeds))]
        )

    def unflatten(self, rows: Tensor) -> Parameters:
        """Views of the rows by parameter name, each (R, ...)."""
        pieces = torch.split(rows, [shape.numel() for shape in self.shapes.values()], dim=1)
        named = zip(self.shapes.items(), pieces, strict=True)
        return {key: piece.view(len(rows), *shape) for (key, shape), piece in named}

    def _column(self, values: Sequence[float]) -> Tensor:
        column = torch.tensor(values, dtype=self.rows.dtype, device=self.device)
        return column.repeat_interleave(len(self.seeds))[:, None]

    def _step(self, share: Tensor, rows: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (R, P) and losses (R,); a function of tensors, so that it can be recorded.

        `tensors`: for each domain x (R, B, ...), then for each y (R, B), then constants and numbers.
        """
        method, domains = self.methods[0], len(self.x)
        names = [*self.constants, *self.hyper, *self.rule_hyper]
        ends = len(self.constants), len(self.constants) + len(self.hyper)

        def of_one(own: Parameters, *tensors: Tensor) -> tuple[Parameters, Tensor]:
            batches = list(zip(tensors[:domains], tensors[domains : 2 * domains], strict=True))
            values = list(zip(names, tensors[2 * domains :], strict=True))
            constants, hyper = dict(values[: ends[0]]), dict(values[ends[0] : ends[1]])

            def parts_of(parameters: Parameters) -> Any:
                return method.objective(_stages(self.network, {**parameters, **constants}), batches, share, **hyper)

            if method.gradient is not None:
                return method.gradient(parts_of, own, **dict(values[ends[1] :]))
            return grad_and_value(lambda parameters: total(parts_of(parameters)))(own)

        grads, losses = vmap(of_one)(self.unflatten(rows), *tensors)
        return torch.cat([grads[key].reshape(len(rows), -1) for key in self.shapes], dim=1), losses

    def _orders(self, batch: int, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """For each domain the rows of an epoch, (steps, S, B)."""
        steps = self.sizes[0] // batch
        found = []
        for size in self.sizes:
            rounds = -(-steps * batch // size)
            order = [
                torch.cat([torch.randperm(size, generator=g) for _ in range(rounds)])[: steps * batch].view(
                    steps, batch
                )
                for g in generators
            ]
            found.append(torch.stack(order, dim=1))
        return found

    def train(self, optimiser: Optimiser, epochs: int, batch: int, schedule: Callable[[float], float]) -> Tensor:
        """Run all epochs; returns the losses (R, steps)."""
        if min(self.sizes) < batch:
            raise ValueError(f"batches of {batch} from domains of {self.sizes} samples")
        lr = self._column([optimiser.lr if m.lr is None else m.lr for m in self.methods])
        decay = torch.full_like(lr, optimiser.weight_decay) if optimiser.weight_decay else None
        state = optimiser.state(self.rows)
        fixed = (*self.constants.values(), *self.hyper.values(), *self.rule_hyper.values())
        generators = [runtime.generator(seed, stream=ORDER) for seed in self.seeds]
        share = torch.zeros((), dtype=self.rows.dtype, device=self.device)
        step: Function = self._step
        losses: list[Tensor] = []
        for epoch in runtime.progress(range(epochs), f"training {len(self.rows)} runs"):
            orders = self._orders(batch, generators)
            for number in range(len(orders[0])):
                picked = [
                    (order[number].repeat(len(self.methods), 1) + size * self.first[:, None]).to(self.device)
                    for order, size in zip(orders, self.sizes, strict=True)
                ]
                share.fill_((epoch + number / len(orders[0])) / epochs)
                batches = [v[rows] for values in (self.x, self.y) for v, rows in zip(values, picked, strict=True)]
                args = (share, self.rows, *batches, *fixed)
                if not losses:
                    step = record(self._step, args)
                grad, loss = step(*args)
                losses.append(loss)
                optimiser.update(self.rows, grad, state, len(losses), lr * schedule(float(share)), decay)
        last = torch.where(self.rows.isfinite().all(1), 0.0, torch.nan).to(self.rows)
        return self._checked(torch.stack([*losses, last], dim=1).cpu())

    def _checked(self, losses: Tensor) -> Tensor:
        """The history; raises for the first run, if any, whose loss is not finite."""
        bad = ~losses.isfinite()
        if bad.any():
            step = int(bad.any(0).int().argmax())
            method, seed = divmod(int(bad[:, step].int().argmax()), len(self.seeds))
            before = losses[method * len(self.seeds) + seed, max(0, step - 3) : step].tolist()
            raise runtime.NonFiniteLoss(self.methods[method].name, self.seeds[seed], step, before)
        return losses[:, :-1]


def total(parts: Any) -> Tensor:
    """The sum of an objective's parts."""
    return sum(parts) if isinstance(parts, (tuple, list)) else parts  # type: ignore[return-value]
