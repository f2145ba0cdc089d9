r"""RFRBoost: residual networks of random features, built layer by layer without backpropagation (arXiv:2501.18283).

.. math:: \Phi_{t+1} = \mathrm{BN}\bigl(\Phi_t + \nu\, \eta_t\, \Delta_t^\top F_t\bigr), \qquad
    F_t = [\tanh(A_t \Phi_t + a_t),\, \tanh(B_t x + b_t)]

A_t and B_t are random (iid, or SWIM: differences of pairs of samples, Bolager et al. 2023); only :math:`\Delta_t` and
the linear head W_t are fitted, each by a convex problem (Zozoulenko, Cass and Gonon 2025).  Variant "gradient": ridge
regression of the normalised functional gradient :math:`G = -\partial\ell/\partial\Phi_t` on F_t, and a line search for
:math:`\eta_t`.  Variant "greedy", squared error only: `sandwiched_least_squares` of the residuals, :math:`\eta_t = 1`.
Conventions of the released code (github.com/nikitazozoulenko/random-feature-representation-boosting): ridge adds
N lambda to the Gram matrix and leaves the intercept alone, the logistic head adds lambda times the sum of squares,
a line search adds 1e-5 times the squared length.

R runs (splits, penalties) are fitted side by side, in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from lib import runtime
from lib.trainers.boosting import BoostingLoss, SquaredError, line_search
from lib.trainers.lbfgs import lbfgs_stack

__all__ = ["RFRBoost", "RandomFeatureNetwork", "ridge", "sandwiched_least_squares", "swim_features"]

FEATURES, ROTATION = 2, 3
PAIRS, NEAREST = 5, 0.01

Affine = tuple[Tensor, Tensor]


def ridge(inputs: Tensor, targets: Tensor, penalty: Tensor) -> Affine:
    r"""Minimises :math:`\frac1N \lVert X \Delta + c - Y \rVert_F^2 + \lambda \lVert \Delta \rVert_F^2`.

    Args:
        inputs: X (R, N, p).
        targets: Y (R, N, d).
        penalty: lambda, (R, 1, 1) or ().

    Returns:
        Delta (R, p, d) and the intercept c (R, 1, d).
    """
    mean, centre = inputs.mean(1, keepdim=True), targets.mean(1, keepdim=True)
    x = inputs - mean
    wide = x.shape[2] > x.shape[1]  # then the dual problem is the smaller one
    gram = x @ x.mT if wide else x.mT @ x
    gram = gram + penalty * x.shape[1] * torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    y = targets - centre
    delta = x.mT @ torch.linalg.solve(gram, y) if wide else torch.linalg.solve(gram, x.mT @ y)
    return delta, centre - mean @ delta


def sandwiched_least_squares(residual: Tensor, head: Tensor, inputs: Tensor, penalty: Tensor | float) -> Tensor:
    r"""Solves the ridge problem of a linear map between two given ones.

    .. math:: \min_\Delta \frac1N \sum_i \lVert r_i - W^\top \Delta^\top F_i \rVert^2 + \lambda \lVert \Delta \rVert_F^2

    With :math:`W W^\top = U s U^\top` and :math:`F^\top F = V \sigma V^\top` the solution is
    :math:`\Delta^\top = U \bigl[(U^\top W r^\top F V)_{ab} / (N \lambda + s_a \sigma_b)\bigr] V^\top` (theorem 3.2).
    Where the denominator is zero (no penalty, no data in a direction) that part of Delta is zero.

    Args:
        residual: r (..., N, d).
        head: W (..., D, d).
        inputs: F (..., N, p).
        penalty: lambda at least 0, a number or broadcastable to (..., 1, 1).

    Returns:
        Delta (..., p, D).
    """
    s, u = torch.linalg.eigh(head @ head.mT)
    sigma, v = torch.linalg.eigh(inputs.mT @ inputs)
    below = inputs.shape[-2] * penalty + s.clamp(min=0)[..., :, None] * sigma.clamp(min=0)[..., None, :]
    above = u.mT @ head @ residual.mT @ inputs @ v
    least = torch.finfo(below.dtype).eps * below.amax((-2, -1), keepdim=True)
    middle = torch.where(below > least, above / torch.where(below > least, below, 1.0), 0.0)
    delta: Tensor = u @ middle @ v.mT
    return delta.mT


def swim_features(x: Tensor, targets: Tensor, count: int, generator: torch.Generator, scale: float = 0.5) -> Affine:
    r"""Weights and biases from pairs of samples: :math:`w = 2c (x_2 - x_1) / \lVert x_2 - x_1 \rVert^2`.

    The bias puts the pair at -c and +c.  Pairs are drawn in proportion to
    :math:`\lVert y_2 - y_1 \rVert / \lVert x_2 - x_1 \rVert`, so steep places of the target get more features.

    Args:
        x: (N, D), at least two samples.
        targets: (N, d).
        count: number of features p.
        generator: on the CPU.
        scale: c.

    Returns:
        Weights (D, p) and biases (1, p).
    """
    n = len(x)
    first = torch.arange(PAIRS * n) % n
    second = (first + torch.randint(1, n, (PAIRS * n,), generator=generator)) % n
    first, second = first.to(x.device), second.to(x.device)
    step = x[second] - x[first]
    distance = step.norm(dim=1).clamp(min=NEAREST)
    odds = (targets[second] - targets[first]).norm(dim=1) / distance
    odds = odds if bool(odds.sum() > 0) else torch.ones_like(odds)
    chosen = torch.multinomial(odds.cpu(), count, replacement=True, generator=generator).to(x.device)
    weights = 2 * scale * step[chosen] / distance[chosen, None].square()
    return weights.T, (-(weights * x[first[chosen]]).sum(1) - scale)[None]


@dataclass(frozen=True)
class _Block:
    """One residual block: random features of phi and x, the map fitted to them, and the normalisation."""

    of_phi: Affine
    of_x: Affine
    delta: Affine
    mean: Tensor
    deviation: Tensor

    def __call__(self, phi: Tensor, x: Tensor) -> Tensor:
        delta, intercept = self.delta
        features = torch.cat([_random(phi, self.of_phi), _random(x, self.of_x)], -1)
        normalised: Tensor = (phi + features @ delta + intercept - self.mean) / self.deviation
        return normalised


@dataclass(frozen=True)
class RandomFeatureNetwork:
    """A stack of fitted networks.

    Attributes:
        start: what makes Phi_0; None: the input itself.
        blocks: one a layer.
        heads: W_t with intercepts, for 0, 1, ... layers.
        train_loss: mean loss on the training data with 0, 1, ... layers, (layers + 1, R).
        steps: lengths of the line searches, (layers, R).
    """

    start: Affine | None
    blocks: list[_Block] = field(repr=False)
    heads: list[Affine] = field(repr=False)
    train_loss: Tensor
    steps: Tensor

    def representations(self, x: Tensor) -> list[Tensor]:
        """Phi_0, Phi_1, ... of x (R, N, D), each (R, N, hidden)."""
        x = x.double()
        phis = [x if self.start is None else _random(x, self.start)]
        for block in self.blocks:
            phis.append(block(phis[-1], x))
        return phis

    def staged(self, x: Tensor) -> Tensor:
        """Scores with 0, 1, ... layers, (layers + 1, R, N, K)."""
        pairs = zip(self.representations(x), self.heads, strict=True)
        return torch.stack([phi @ weight + bias for phi, (weight, bias) in pairs])


@dataclass(frozen=True)
class RFRBoost:
    """Settings of RFRBoost; `fit` trains a stack of runs.  Without layers: a random feature network (or linear model).

    Attributes:
        variant: "gradient" (any loss) or "greedy" (squared error).
        n_layers: residual blocks.
        hidden_dim: width of the representation Phi.
        n_features: random features of Phi_t, and as many of x, in each block.
        l2: penalty of the heads, one for all runs or one a run.
        l2_ghat: penalty of the blocks; None: as `l2`.
        boost_lr: factor nu of every block.
        feature_type: "SWIM" or "iid".
        upscale: what makes Phi_0: "iid", "SWIM", or "identity" (then `hidden_dim` is that of x).
        target: "gradient", or for comparison "rotated": the gradient turned at random over the samples.
        head_iterations: of L-BFGS for the first logistic head; later ones start from the one before and take half.
    """

    variant: str = "gradient"
    n_layers: int = 5
    hidden_dim: int = 128
    n_features: int = 512
    l2: float | Sequence[float] = 1e-4
    l2_ghat: float | None = None
    boost_lr: float = 1.0
    feature_type: str = "SWIM"
    upscale: str = "iid"
    target: str = "gradient"
    head_iterations: int = 40

    def __post_init__(self) -> None:
        allowed = {"variant": ("gradient", "greedy"), "feature_type": ("SWIM", "iid"),
                   "upscale": ("iid", "SWIM", "identity"), "target": ("gradient", "rotated")}  # fmt: skip
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}: one of {', '.join(values)}, got {getattr(self, name)!r}")

    def fit(self, x: Tensor, y: Tensor, loss: BoostingLoss, seeds: Sequence[int]) -> RandomFeatureNetwork:
        """Fit one network a run; a run's seed decides its random features.

        Args:
            x: (R, N, D).
            y: (R, N).
            loss: from `lib.trainers.boosting`.
            seeds: R of them; runs with the same seed draw the same features.

        Raises:
            ValueError: shapes do not agree, or the greedy variant with another loss than the squared error.
        """
        if x.ndim != 3 or x.shape[:2] != y.shape or len(seeds) != len(x):
            raise ValueError(f"x (R, N, D), y (R, N), R seeds: got {tuple(x.shape)}, {tuple(y.shape)}, {len(seeds)}")
        if self.variant == "greedy" and not isinstance(loss, SquaredError):
            raise ValueError("the greedy variant has a closed form for the squared error only")
        x = x.double()
        y = y.double() if isinstance(loss, SquaredError) else y
        targets = functional.one_hot(y, loss.outputs).double() if loss.outputs > 1 else y[..., None].double()
        penalty = torch.tensor(self.l2, dtype=x.dtype, device=x.device).expand(len(x))[:, None, None]
        small = penalty if self.l2_ghat is None else torch.full_like(penalty, self.l2_ghat)
        draw = [runtime.generator(seed, stream=FEATURES) for seed in seeds]
        turn = [runtime.generator(seed, stream=ROTATION) for seed in seeds]
        start = None if self.upscale == "identity" else _draw(self.upscale, x, targets, self.hidden_dim, draw)
        phi = x if start is None else _random(x, start)
        heads, blocks, steps = [self._head(phi, y, loss, penalty, None)], [], []
        losses = [loss.value(phi @ heads[0][0] + heads[0][1], y).mean(-1)]
        for _ in range(self.n_layers):
            weight, bias = heads[-1]
            of_phi = _draw(self.feature_type, phi, targets, self.n_features, draw)
            of_x = _draw(self.feature_type, x, targets, self.n_features, draw)
            features = torch.cat([_random(phi, of_phi), _random(x, of_x)], -1)
            scores = phi @ weight + bias
            residual = -loss.gradient(scores, y)
            if self.variant == "greedy":
                delta: Affine = (
                    sandwiched_least_squares(residual, weight, features, small),
                    torch.zeros_like(phi[:, :1]),
                )
                step = torch.ones_like(penalty)
            else:
                gradient = residual @ weight.mT
                gradient = gradient * (x.shape[1] ** 0.5 / gradient.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12))
                if self.target == "rotated":
                    gradient = _rotation(x.shape[1], turn, x) @ gradient
                delta = ridge(features, gradient, small)
                direction = (features @ delta[0] + delta[1]) @ weight
                lengths = [line_search(loss, f, t, d) for f, t, d in zip(scores, y, direction, strict=True)]
                step = torch.tensor(lengths, dtype=x.dtype, device=x.device)[:, None, None]
            delta = delta[0] * step * self.boost_lr, delta[1] * step * self.boost_lr
            moved = phi + features @ delta[0] + delta[1]
            deviation = (moved.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            block = _Block(of_phi, of_x, delta, moved.mean(1, keepdim=True), deviation)
            phi = (moved - block.mean) / block.deviation
            blocks.append(block)
            steps.append(step[:, 0, 0])
            heads.append(self._head(phi, y, loss, penalty, heads[-1]))
            losses.append(loss.value(phi @ heads[-1][0] + heads[-1][1], y).mean(-1))
        lengths_ = torch.stack(steps) if steps else torch.zeros(0, len(x))
        return RandomFeatureNetwork(start, blocks, heads, torch.stack(losses), lengths_)

    def _head(self, phi: Tensor, y: Tensor, loss: BoostingLoss, penalty: Tensor, before: Affine | None) -> Affine:
        """The linear head: ridge regression, or L-BFGS from the head `before`, in half the iterations."""
        if isinstance(loss, SquaredError):
            return ridge(phi, y[..., None], penalty)
        sizes = [phi.shape[-1] * loss.outputs, loss.outputs]

        def unpack(flat: Tensor) -> Affine:
            weight, bias = torch.split(flat, sizes, dim=1)
            return weight.reshape(len(phi), -1, loss.outputs), bias[:, None]

        def objective(flat: Tensor) -> tuple[Tensor, Tensor]:
            weight, bias = unpack(flat)
            scores = phi @ weight + bias
            error = loss.gradient(scores, y) / phi.shape[1]
            value = loss.value(scores, y).mean(-1) + (penalty * weight.square()).sum((1, 2))
            slope = phi.mT @ error + 2 * penalty * weight
            return value, torch.cat([slope.flatten(1), error.sum(1)], 1)

        flat, iterations = torch.zeros(len(phi), sum(sizes), dtype=phi.dtype, device=phi.device), self.head_iterations
        if before is not None and before[0].shape[1] == phi.shape[2]:
            flat, iterations = torch.cat([part.flatten(1) for part in before], 1), max(1, iterations // 2)
        return unpack(lbfgs_stack(objective, flat, iterations)[0])


def _random(x: Tensor, layer: Affine) -> Tensor:
    return torch.tanh(torch.baddbmm(layer[1], x, layer[0]))


def _draw(kind: str, x: Tensor, targets: Tensor, count: int, draw: list[torch.Generator]) -> Affine:
    """Random weights (R, D, p) and biases (R, 1, p), for every run from its own generator."""
    layers = []
    for own, goal, generator in zip(x, targets, draw, strict=True):
        if kind == "SWIM":
            layers.append(swim_features(own, goal, count, generator))
        else:
            uniform = torch.rand(x.shape[-1] + 1, count, generator=generator, dtype=x.dtype).to(x.device)
            weights = (2 * uniform - 1) / x.shape[-1] ** 0.5
            layers.append((weights[:-1], weights[-1:]))
    weights, biases = (torch.stack(parts) for parts in zip(*layers, strict=True))
    return weights, biases


def _rotation(n: int, draw: list[torch.Generator], like: Tensor) -> Tensor:
    """Random orthogonal matrices (R, n, n)."""
    normal = torch.stack([torch.randn(n, n, generator=generator, dtype=like.dtype) for generator in draw])
    q, _ = torch.linalg.qr(normal.to(like.device))
    turned: Tensor = q
    return turned
