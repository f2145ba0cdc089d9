r"""GrowNet: gradient boosting with shallow networks as weak learners (Badirli et al. 2020, arXiv:2002.07971).

.. math:: F_K(x) = c_0 + \alpha \sum_{k=1}^K f_k\bigl([x, g_{k-1}(x)]\bigr)

Stage k fits f_k to the second-order model of the loss at :math:`F_{k-1}` (algorithm 1), and sees, beside x, the last
hidden layer :math:`g_{k-1}` of the learner before it.  From the second stage on a corrective step then trains all
learners and the boost rate :math:`\alpha` together on the loss itself.  Details follow the released code
(github.com/sbadirli/GrowNet): a learner is ``Linear - LeakyReLU(0.1) - BatchNorm - Linear = g; ReLU; Linear``, its
joint input is batch-normalised, g is taken before its activation, the corrective step has half the learning rate, and
learning rate and weight decay are halved every 15 stages.

Deviations: batch normalisation takes the statistics of the whole training set, anew after every stage, where the
released code keeps moving averages; finished learners use them while the next one is fitted.  Several classes, which
the paper does not treat, get one output each and the diagonal of the softmax Hessian.

All R runs of a stack (one a seed) are trained at once: every parameter has a leading dimension R, and Adam works
elementwise, so the runs do not see one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from lib import runtime
from lib.trainers.boosting import BoostingLoss

__all__ = ["GrowNet", "Grown", "stage_objective"]

INITIALISE, ORDER = 2, 1
HALVE_EVERY = 15
NORM_EPS = 1e-5

Learner = dict[str, Tensor]


def stage_objective(f: Tensor, gradient: Tensor, curvature: Tensor, boost_rate: Tensor) -> Tensor:
    r"""What a weak learner minimises: :math:`\tfrac1N \sum_i H_i (\alpha f_i)^2 + 2\,G_i\,\alpha f_i` (equation 2).

    Equal to the weighted least squares :math:`\sum_i H_i (-G_i / H_i - \alpha f_i)^2` up to a constant, and without its
    division: the target -G / H of a confidently wrong sample is huge, its weight H tiny.  With H = 1: first order.

    Args:
        f: the learner's outputs (..., N, K).
        gradient: G (..., N, K) at the ensemble so far.
        curvature: H (..., N, K).
        boost_rate: alpha, broadcastable to f.

    Returns:
        Mean over samples, sum over outputs, (...).
    """
    step = boost_rate * f
    return (curvature * step.square() + 2 * gradient * step).sum(-1).mean(-1)


@dataclass(frozen=True)
class _Stage:
    """An ensemble as it is after a stage: learners with frozen statistics, and the boost rate (R,)."""

    learners: list[Learner]
    boost_rate: Tensor
    train_loss: Tensor


@dataclass(frozen=True)
class Grown:
    """A stack of trained ensembles.

    Attributes:
        start: c_0, (R, 1, K).
        stages: the ensembles after stage 1, 2, ...
        propagate: whether learners see the features of the one before.
    """

    start: Tensor
    stages: list[_Stage] = field(repr=False)
    propagate: bool

    @property
    def boost_rates(self) -> Tensor:
        """Alpha after every stage, (stages, R)."""
        return torch.stack([stage.boost_rate for stage in self.stages])

    @property
    def train_loss(self) -> Tensor:
        """Mean loss on the training data after every stage, (stages, R)."""
        return torch.stack([stage.train_loss for stage in self.stages])

    @torch.no_grad()
    def scores(self, x: Tensor, stage: int = -1) -> Tensor:
        """F after a stage (an index from 0; default the last) for x (R, N, D): (R, N, K)."""
        at = self.stages[stage]
        total, below = torch.zeros((), device=x.device), None
        for learner in at.learners:
            below, f = _forward(learner, x, below if self.propagate else None, frozen=True)
            total = total + f
        return self.start + at.boost_rate[:, None, None] * total

    def staged(self, x: Tensor) -> Tensor:
        """F after every stage, (stages, R, N, K)."""
        return torch.stack([self.scores(x, stage) for stage in range(len(self.stages))])


@dataclass(frozen=True)
class GrowNet:
    """Settings of GrowNet; `fit` trains a stack of runs.

    Attributes:
        hidden: width h of both hidden layers of a learner.
        stages: number of learners K.
        boost_rate: alpha at the start, trained in the corrective steps.
        lr: of Adam in a stage.
        epochs_per_stage: passes over the data to fit a learner.
        corrective_epochs: passes of each corrective step; 0: greedy boosting.
        order: 2: Newton targets, 1: gradient targets.
        propagate: give each learner the features of the one before.
        batch_size: samples a step; an incomplete last batch is dropped.
        weight_decay: L2 of Adam.
        floor: lower bound of the curvature of several classes (ours).
    """

    hidden: int = 16
    stages: int = 40
    boost_rate: float = 1.0
    lr: float = 0.005
    epochs_per_stage: int = 1
    corrective_epochs: int = 1
    order: int = 2
    propagate: bool = True
    batch_size: int = 128
    weight_decay: float = 0.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"order: 1 (gradient) or 2 (Newton), got {self.order}")
        if min(self.hidden, self.stages, self.epochs_per_stage, self.batch_size - 1) < 1 or self.corrective_epochs < 0:
            raise ValueError("need a hidden unit, a stage, an epoch, and batches of two samples")

    def fit(self, x: Tensor, y: Tensor, loss: BoostingLoss, seeds: Sequence[int]) -> Grown:
        """Train one ensemble a seed; seeds decide initialisation and order of the data.

        Args:
            x: (R, N, D).
            y: (R, N).
            loss: from `lib.trainers.boosting`.
            seeds: R of them.

        Raises:
            ValueError: shapes do not agree.
            NonFiniteLoss: the training loss after a stage is not finite.
        """
        if x.ndim != 3 or x.shape[:2] != y.shape or len(seeds) != len(x):
            raise ValueError(f"x (R, N, D), y (R, N), R seeds: got {tuple(x.shape)}, {tuple(y.shape)}, {len(seeds)}")
        draw = [runtime.generator(seed, stream=INITIALISE) for seed in seeds]
        order = [runtime.generator(seed, stream=ORDER) for seed in seeds]
        start = loss.start(y).to(x)
        alpha = torch.full((len(x), 1, 1), self.boost_rate, device=x.device)
        learners: list[Learner] = []
        done: list[_Stage] = []
        scores, below = start.expand(*y.shape, loss.outputs), None
        lr, decay = self.lr, self.weight_decay
        for stage in range(self.stages):
            if stage and stage % HALVE_EVERY == 0:
                lr, decay = lr / 2, decay / 2
            learner = _initial(draw, x.shape[-1], self.hidden, loss.outputs, below is not None, x.device)
            # Finished learners stand still within a stage: gradient and curvature are those of F_{k-1}.
            gradient = loss.gradient(scores, y)
            curvature = self._curvature(loss, scores)
            adam = torch.optim.Adam(_weights([learner]), lr, weight_decay=decay, fused=True)
            for rows in self._batches(order, y, self.epochs_per_stage):
                _, f = _forward(learner, _take(x, rows), None if below is None else _take(below, rows))
                parts = _take(gradient, rows), _take(curvature, rows)
                _update(adam, stage_objective(f, *parts, alpha.detach()).sum())
            learners.append(learner)
            if stage and self.corrective_epochs:
                alpha.requires_grad_(True)
                adam = torch.optim.Adam([*_weights(learners), alpha], lr / 2, weight_decay=decay, fused=True)
                for rows in self._batches(order, y, self.corrective_epochs):
                    all_scores = start + alpha * self._sum(learners, _take(x, rows))
                    _update(adam, loss.value(all_scores, _take(y, rows)).mean(-1).sum())
            with torch.no_grad():
                total, below = torch.zeros((), device=x.device), None
                for each in learners:
                    below, f = _forward(each, x, below if self.propagate else None, keep=True)
                    total = total + f
                scores = start + alpha * total
                train_loss = loss.value(scores, y).mean(-1)
                below = below if self.propagate else None
            for seed, value in zip(seeds, train_loss.tolist(), strict=True):
                if not abs(value) < float("inf"):
                    raise runtime.NonFiniteLoss("GrowNet", seed, stage)
            copies = [{name: value.detach().clone() for name, value in each.items()} for each in learners]
            done.append(_Stage(copies, alpha.detach()[:, 0, 0].clone(), train_loss))
        return Grown(start, done, self.propagate)

    def _curvature(self, loss: BoostingLoss, scores: Tensor) -> Tensor:
        if self.order == 1:
            return torch.ones_like(scores)
        curvature = loss.curvature(scores)
        return curvature.clamp(min=self.floor) if loss.outputs > 1 else curvature

    def _sum(self, learners: list[Learner], x: Tensor) -> Tensor:
        total, below = torch.zeros((), device=x.device), None
        for learner in learners:
            below, f = _forward(learner, x, below if self.propagate else None)
            total = total + f
        return total

    def _batches(self, generators: list[torch.Generator], y: Tensor, epochs: int) -> list[Tensor]:
        n = y.shape[1]
        size = min(self.batch_size, n)
        batches = []
        for _ in range(epochs):
            shuffled = torch.stack([torch.randperm(n, generator=generator) for generator in generators]).to(y.device)
            batches += list(torch.split(shuffled[:, : n // size * size], size, dim=1))
        return batches


def _initial(
    draw: list[torch.Generator], inputs: int, hidden: int, outputs: int, lower: bool, device: torch.device
) -> Learner:
    """Torch's default initialisation of linear layers, uniform within 1 / sqrt(inputs), a generator a run."""
    inputs += hidden if lower else 0
    learner = {}
    for name, a, b in (("in", inputs, hidden), ("mid", hidden, hidden), ("out", hidden, outputs)):
        for part, shape in (("w", (a, b)), ("b", (1, b))):
            drawn = torch.stack([torch.rand(shape, generator=generator) for generator in draw])
            learner[f"{name}.{part}"] = (2 * drawn - 1).div(a**0.5).to(device)
    for name, width in (("norm", hidden), *((("norm_in", inputs),) if lower else ())):
        learner[f"{name}.w"] = torch.ones(len(draw), 1, width, device=device)
        learner[f"{name}.b"] = torch.zeros(len(draw), 1, width, device=device)
    for value in learner.values():
        value.requires_grad_(True)
    return learner


def _forward(
    learner: Learner, x: Tensor, below: Tensor | None, frozen: bool = False, keep: bool = False
) -> tuple[Tensor, Tensor]:
    """Features g and outputs f; statistics of this batch, the `frozen` ones, or this batch's for later (`keep`)."""

    def normalised(name: str, value: Tensor) -> Tensor:
        mean = learner[f"{name}.mean"] if frozen else value.mean(1, keepdim=True)
        centred = value - mean
        variance = learner[f"{name}.variance"] if frozen else centred.square().mean(1, keepdim=True)
        if keep:
            learner[f"{name}.mean"], learner[f"{name}.variance"] = mean, variance
        scale = learner[f"{name}.w"] * torch.rsqrt(variance + NORM_EPS)
        return torch.addcmul(learner[f"{name}.b"], centred, scale)

    if below is not None:
        x = normalised("norm_in", torch.cat([x, below], -1))
    first = functional.leaky_relu(torch.baddbmm(learner["in.b"], x, learner["in.w"]), 0.1)
    g = torch.baddbmm(learner["mid.b"], normalised("norm", first), learner["mid.w"])
    return g, torch.baddbmm(learner["out.b"], torch.relu(g), learner["out.w"])


def _weights(learners: list[Learner]) -> list[Tensor]:
    return [value for learner in learners for value in learner.values() if value.requires_grad]


def _take(values: Tensor, rows: Tensor) -> Tensor:
    """Rows (R, B) of values (R, N, ...)."""
    return values[torch.arange(len(rows), device=rows.device)[:, None], rows]


def _update(optimiser: torch.optim.Optimizer, objective: Tensor) -> None:
    optimiser.zero_grad()
    objective.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
