"""Methods against baselines over paired seeds, all runs in one batch.

Every method of a seed starts from the same parameters and sees the same batches, so differences between methods
are differences within pairs.  Small models are bound by the overhead of Python and of kernel launches, which the
stack of all runs (seeds x methods), trained by `torch.func.vmap`, pays once instead of once a run.  With
``vectorised=False`` the runs go one by one through autograd and `torch.optim`: the slower way for networks that do
not fit `vmap` (batch normalisation, dropout), and the oracle that the tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lib import runtime
from lib.trainers import _loop, _stack
from lib.trainers._job import GradientRule, Method, Parameters, Runs, prepare, unique_names
from lib.trainers.batches import Sampler, shuffled
from lib.trainers.optimisers import SGD, Optimiser

__all__ = ["GradientRule", "Method", "Trained", "train_paired"]


@dataclass(frozen=True)
class Trained:
    """What came out; S seeds in the order given.

    Attributes:
        seeds: of the runs.
        parameters: method -> name -> (S, ...), trained.
        constants: method -> name -> (S, ...), buffers and frozen parameters.
        history: method -> (S, steps), the training loss of each batch before its update, on the CPU;
            NaN from the step on at which a run was stopped.
        checkpoints: method -> stacked parameters, the first at initialisation, then every `checkpoint_every` epochs.
        diverged: method -> (S,), step at which the run was stopped, or -1.
    """

    seeds: tuple[int, ...]
    parameters: dict[str, Parameters]
    constants: dict[str, Parameters]
    history: dict[str, Tensor]
    checkpoints: dict[str, list[Parameters]]
    diverged: dict[str, Tensor]
    _factory: Callable[[], nn.Module] = field(repr=False)
    _sample_ndim: int = field(repr=False)

    def module(self, name: str, seed: int) -> nn.Module:
        """The trained network of one run, in evaluation mode.

        Raises:
            KeyError: unknown method.
            ValueError: unknown seed.
        """
        if seed not in self.seeds:
            raise ValueError(f"no seed {seed}; trained: {list(self.seeds)}")
        row = self.seeds.index(seed)
        with runtime.isolated(seed):
            module = self._factory()
        state = {key: value[row].clone() for key, value in self._state(name).items()}
        module.load_state_dict(state, strict=False)
        return module.to(next(iter(state.values())).device).eval()

    @torch.no_grad()
    def logits(self, name: str, x: Tensor, batch: int = 8192) -> Tensor:
        """Outputs of a method's S networks, shape (S, N, C), on the device of x.

        Args:
            name: of the method.
            x: (N, ...) for all seeds, or (S, N, ...) with inputs of their own for each.
            batch: samples at a time.
        """
        state = self._state(name)
        home = next(iter(state.values())).device
        per_seed = x.ndim == self._sample_ndim + 2
        if per_seed and len(x) != len(self.seeds):
            raise ValueError(f"x: inputs for {len(x)} seeds, trained were {len(self.seeds)}")
        with runtime.isolated(0):  # every value is replaced below
            module = self._factory().to(home).eval()
        rows = []
        for row in range(len(self.seeds)):
            own = {key: value[row] for key, value in state.items()}
            parts = torch.split(x[row] if per_seed else x, batch)
            rows.append(torch.cat([functional_call(module, own, (part.to(home),)) for part in parts]))
        return torch.stack(rows).to(x.device)

    def _state(self, name: str) -> Parameters:
        if name not in self.parameters:
            raise KeyError(f"no method {name!r}; trained: {', '.join(self.parameters)}")
        return {**self.parameters[name], **self.constants[name]}


def train_paired(
    model_factory: Callable[[], nn.Module],
    methods: Sequence[Method],
    data: Callable[[int], tuple[Tensor, Tensor]] | tuple[Tensor, Tensor],
    *,
    seeds: Sequence[int] = range(10),
    optimiser: Optimiser = SGD(),  # noqa: B008  (frozen)
    epochs: int = 30,
    batch_size: int = 64,
    sampler: Sampler | None = None,
    schedule: Callable[[float], float] | None = None,
    vectorised: bool = True,
    device: str | torch.device = "auto",
    on_nonfinite: Literal["raise", "stop"] = "raise",
    checkpoint_every: int | None = None,
) -> Trained:
    """Train every method on every seed, from the same initialisation and with the same batches within a seed.

    Args:
        model_factory: builds an untrained network; called once a seed with torch's generator seeded by it.
        methods: what is compared; those with the same loss, gradient rule and names of hyperparameters form a stack.
        data: (x, y) for all seeds, or ``data(seed)`` that returns arrays of the same shapes for every seed.
        seeds: of the runs: initialisation and order of the data.
        optimiser: `SGD`, `Adam` or `AdamW`.
        epochs: passes over the data.
        batch_size: of the default sampler, which drops an incomplete last batch (see `shuffled`).
        sampler: another choice of batches, e.g. `class_balanced`.
        schedule: factor of the learning rate by the share of training done, in [0, 1).
        vectorised: one stack under `vmap`; else one run after the other through autograd and `torch.optim`.
        device: see `lib.runtime.device`.
        on_nonfinite: "raise" an error on the first loss that is not finite, or "stop" that run at the last
            parameters whose loss was finite and go on with the others.
        checkpoint_every: epochs between checkpoints.

    Raises:
        NonFiniteLoss: a loss is not finite and `on_nonfinite` is "raise".
        ValueError: method names not unique, data of different shapes, no batch, or a network that cannot be stacked.
    """
    names = unique_names(methods)
    if on_nonfinite not in ("raise", "stop"):
        raise ValueError(f"on_nonfinite: 'raise' or 'stop', got {on_nonfinite!r}")
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
        on_nonfinite == "stop",
    )
    results: dict[str, Runs] = {}
    train = _stack.train if vectorised else _loop.train
    for group in _groups(methods):
        results.update(train(job, group))
    return Trained(
        seeds=job.seeds,
        parameters={name: results[name].parameters for name in names},
        constants={name: results[name].constants for name in names},
        history={name: results[name].history for name in names},
        checkpoints={name: results[name].checkpoints for name in names},
        diverged={name: results[name].diverged for name in names},
        _factory=model_factory,
        _sample_ndim=job.x.ndim - 1,
    )


def _groups(methods: Sequence[Method]) -> list[list[Method]]:
    groups: dict[Any, list[Method]] = {}
    for method in methods:
        keys = (tuple(sorted(method.hyper)), tuple(sorted(method.rule_hyper)))
        groups.setdefault((id(method.loss), id(method.gradient), keys), []).append(method)
    return list(groups.values())
