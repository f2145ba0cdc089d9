r"""GBNN: a hidden layer trained a few units at a time by gradient boosting (Emami, Martinez-Munoz, arXiv:1909.12098).

.. math:: F_t(x) = F_{t-1}(x) + \eta\, \rho_t\, h_t(x), \qquad t = 1 \dots T

h_t is a network of J hidden units fitted to the pseudo-residuals :math:`r = -\partial \ell / \partial F_{t-1}` by least
squares, :math:`\rho_t` one Newton step of the loss along it.  A sum of such networks *is* a network with T J hidden
units: block t keeps its input weights, its output weights are multiplied by :math:`\eta\rho_t`, and the output biases
add up (section III).  As in the released code (github.com/GAA-UAM/GBNN): subsamples without replacement, L-BFGS on the
squared error with a small weight decay, step 1 for regression, one step for all classes from the diagonal of the
Hessian, half-logit scores for two classes (`Logistic` with scale 2).

Deviations: the multi-class start is the constant of least loss, as the paper says, where the code takes 0; R runs
(splits, values of eta) are fitted side by side, each with its own generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib import runtime
from lib.trainers.boosting import BoostingLoss, Logistic, SquaredError, newton_step
from lib.trainers.lbfgs import lbfgs_stack

__all__ = ["GBNN", "Boosted", "HiddenLayer", "train_jointly"]

INITIALISE, SUBSAMPLE = 2, 3


@dataclass(frozen=True)
class HiddenLayer:
    r"""A stack of networks with one hidden layer, :math:`F = \phi(x A + a)\, B + b`.

    Attributes:
        inner: A (R, D, M).
        inner_bias: a (R, 1, M).
        outer: B (R, M, K).
        outer_bias: b (R, 1, K).
    """

    inner: Tensor
    inner_bias: Tensor
    outer: Tensor
    outer_bias: Tensor

    def hidden(self, x: Tensor) -> Tensor:
        """Outputs of the hidden units, logistic, (R, N, M)."""
        return torch.sigmoid(torch.baddbmm(self.inner_bias, x.to(self.inner), self.inner))

    def __call__(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Scores (R, N, K) for x (R, N, D); `keep` (M,) or (R, M): factors of the hidden units, 0 switches one off."""
        hidden = self.hidden(x)
        if keep is not None:
            hidden = hidden * keep.to(hidden).reshape(-1, 1, hidden.shape[-1])
        return torch.baddbmm(self.outer_bias, hidden, self.outer)


def _unpack(flat: Tensor, inputs: int, units: int, outputs: int) -> HiddenLayer:
    sizes = [inputs * units, units, units * outputs, outputs]
    inner, inner_bias, outer, outer_bias = torch.split(flat, sizes, dim=1)
    return HiddenLayer(
        inner.view(-1, inputs, units),
        inner_bias.view(-1, 1, units),
        outer.view(-1, units, outputs),
        outer_bias.view(-1, 1, outputs),
    )


def _initial(draw: list[torch.Generator], inputs: int, units: int, outputs: int) -> Tensor:
    """Glorot's uniform initialisation for logistic units, weights and biases alike, one flat row a run."""
    rows = []
    for generator in draw:
        parts = []
        for a, b in ((inputs, units), (units, outputs)):
            bound = (2 / (a + b)) ** 0.5
            uniform = torch.rand(a * b + b, generator=generator, dtype=torch.float64)
            parts.append(bound * (2 * uniform - 1))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@dataclass(frozen=True)
class _Fit:
    """Mean loss of a stack of networks and its gradient, with weight decay (R, 1) on the weights.

    Without `loss`, y (R, N, K) are targets of a squared error.
    """

    x: Tensor
    y: Tensor
    units: int
    outputs: int
    decay: Tensor
    loss: BoostingLoss | None = None

    def __call__(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        net = _unpack(flat, self.x.shape[-1], self.units, self.outputs)
        hidden = net.hidden(self.x)
        scores = torch.baddbmm(net.outer_bias, hidden, net.outer)
        if self.loss is None:
            error = scores - self.y
            value = 0.5 * error.square().sum(-1).mean(-1)
        else:
            error = self.loss.gradient(scores, self.y)
            value = self.loss.value(scores, self.y).mean(-1)
        error = error / self.x.shape[1]
        back = (error @ net.outer.mT) * hidden * (1 - hidden)
        slopes = (self.x.mT @ back, back.sum(1), hidden.mT @ error, error.sum(1))
        weights = (net.inner, net.outer)
        value = value + 0.5 * self.decay[:, 0] * sum(w.square().sum((1, 2)) for w in weights)
        decayed = (slopes[0] + self.decay[:, None] * net.inner, slopes[2] + self.decay[:, None] * net.outer)
        return value, torch.cat([part.flatten(1) for part in (decayed[0], slopes[1], decayed[1], slopes[3])], 1)


@dataclass(frozen=True)
class Boosted:
    """A stack of boosted sums.

    Attributes:
        start: F_0, (R, 1, K).
        blocks: the weak learners h_t.
        steps: eta rho_t, (T, R).
        train_loss: mean loss on the training data after 0, 1, ..., T blocks, (T + 1, R).
        scale: what turns scores into logits: 2 for the two-class loss, else 1.
    """

    start: Tensor
    blocks: list[HiddenLayer] = field(repr=False)
    steps: Tensor
    train_loss: Tensor
    scale: float

    def staged(self, x: Tensor) -> Tensor:
        """Logits (or predictions) after 0, 1, ..., T blocks, (T + 1, R, N, K): the sum, term by term."""
        terms = [self.start.expand(len(x), x.shape[1], -1)]
        terms += [step[:, None, None] * block(x) for block, step in zip(self.blocks, self.steps, strict=True)]
        return self.scale * torch.stack(terms).cumsum(0)

    def to_single_network(self, blocks: int | None = None) -> HiddenLayer:
        """The first blocks (default: all) welded into one network of as many hidden units, which returns logits.

        Raises:
            ValueError: not 1 to T blocks.
        """
        count = len(self.blocks) if blocks is None else blocks
        if not 1 <= count <= len(self.blocks):
            raise ValueError(f"blocks: 1 to {len(self.blocks)}, got {blocks}")
        used = list(zip(self.blocks[:count], (self.scale * self.steps)[:, :, None, None], strict=False))
        bias = self.scale * self.start + sum(step * block.outer_bias for block, step in used)
        return HiddenLayer(
            torch.cat([block.inner for block, _ in used], 2),
            torch.cat([block.inner_bias for block, _ in used], 2),
            torch.cat([step * block.outer for block, step in used], 1),
            bias,
        )


@dataclass(frozen=True)
class GBNN:
    """Settings of GBNN; `fit` trains a stack of runs.

    Attributes:
        total_nn: hidden units of the whole network.
        num_nn_step: units a block, J; there are total_nn // J blocks.
        eta: shrinkage, one for all runs or one a run.
        subsample: share of the training data that each block sees, without replacement.
        max_iter: iterations of L-BFGS for a block.
        decay: weight decay of a block's fit, divided by the number of its samples (scikit-learn's `alpha`).
    """

    total_nn: int = 200
    num_nn_step: int = 1
    eta: float | Sequence[float] = 1.0
    subsample: float = 0.5
    max_iter: int = 200
    decay: float = 1e-4

    def __post_init__(self) -> None:
        if not 1 <= self.num_nn_step <= self.total_nn:
            raise ValueError(f"need 1 <= num_nn_step <= total_nn, got {self.num_nn_step} and {self.total_nn}")
        if not 0 < self.subsample <= 1:
            raise ValueError(f"subsample: a share in (0, 1], got {self.subsample}")

    def fit(self, x: Tensor, y: Tensor, loss: BoostingLoss, seeds: Sequence[int]) -> Boosted:
        """Train one boosted sum a run, in float64; a run's seed decides its initial weights and subsamples.

        Args:
            x: (R, N, D).
            y: (R, N).
            loss: `SquaredError`, `Softmax`, or for two classes `Logistic`, which is used with scale 2.
            seeds: R of them; runs with the same seed draw the same numbers.

        Raises:
            ValueError: shapes do not agree, or as many etas as runs are needed.
        """
        if x.ndim != 3 or x.shape[:2] != y.shape or len(seeds) != len(x):
            raise ValueError(f"x (R, N, D), y (R, N), R seeds: got {tuple(x.shape)}, {tuple(y.shape)}, {len(seeds)}")
        loss = Logistic(2.0) if isinstance(loss, Logistic) else loss
        scale = loss.scale if isinstance(loss, Logistic) else 1.0
        x = x.double()
        y = y.double() if isinstance(loss, SquaredError) else y
        eta = torch.tensor(self.eta, dtype=x.dtype, device=x.device).expand(len(x))
        draw = [runtime.generator(seed, stream=INITIALISE) for seed in seeds]
        choose = [runtime.generator(seed, stream=SUBSAMPLE) for seed in seeds]
        count = max(1, int(self.subsample * x.shape[1]))
        decay = torch.full((len(x), 1), self.decay / count, dtype=x.dtype, device=x.device)
        start = loss.start(y).to(x)
        scores = start.expand(*y.shape, loss.outputs)
        blocks, steps, train_loss = [], [], [loss.value(scores, y).mean(-1)]
        here = torch.arange(len(x), device=x.device)[:, None]
        for _ in range(self.total_nn // self.num_nn_step):
            rows = torch.stack([torch.randperm(x.shape[1], generator=own)[:count] for own in choose]).to(x.device)
            residual = -loss.gradient(scores, y).nan_to_num()
            shape = x.shape[-1], self.num_nn_step, loss.outputs
            fit = _Fit(x[here, rows], residual[here, rows], *shape[1:], decay)
            flat, _ = lbfgs_stack(fit, _initial(draw, *shape).to(x.device), self.max_iter)
            block = _unpack(flat, *shape)
            output = block(x)
            step = eta
            if not isinstance(loss, SquaredError):
                # Where every sample is certain there is next to no curvature, and the step may leave the numbers.
                step = eta * newton_step(loss, scores, y, output, diagonal=True).nan_to_num(0.0, 0.0, 0.0)
            scores = scores + step[:, None, None] * output
            blocks.append(block)
            steps.append(step)
            train_loss.append(loss.value(scores, y).mean(-1))
        return Boosted(start, blocks, torch.stack(steps), torch.stack(train_loss), scale)


def train_jointly(
    x: Tensor,
    y: Tensor,
    loss: BoostingLoss,
    seeds: Sequence[int],
    units: int,
    decay: Sequence[float],
    iterations: int = 200,
) -> HiddenLayer:
    """The same network trained as a whole by L-BFGS on the loss, in float64, one run a seed.

    Args:
        x: (R, N, D).
        y: (R, N).
        loss: of scores and labels.
        seeds: R of them.
        units: hidden units.
        decay: weight decay of every run.
        iterations: of L-BFGS.
    """
    x = x.double()
    y = y.double() if isinstance(loss, SquaredError) else y
    draw = [runtime.generator(seed, stream=INITIALISE) for seed in seeds]
    shape = x.shape[-1], units, loss.outputs
    fit = _Fit(x, y, units, loss.outputs, torch.tensor(decay, dtype=x.dtype, device=x.device)[:, None], loss)
    return _unpack(lbfgs_stack(fit, _initial(draw, *shape).to(x.device), iterations)[0], *shape)
