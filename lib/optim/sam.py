"""Sharpness-aware minimisation (Foret, Kleiner, Mobahi, Neyshabur 2020, arXiv:2010.01412, algorithm 1).

    min_w  max_{||e||_p <= rho}  L(w + e)  +  lambda ||w||_2^2                                       (eq. 1)
    e(w) = rho sign(g) |g|^(q-1) / (||g||_q^q)^(1/p),   g = grad L(w),   1/p + 1/q = 1               (eq. 2)
    g_SAM(w) = grad L(w + e(w)),  e(w) held constant                                                  (eq. 3)

One norm over all parameters; for p = 2, e = rho g / ||g||_2.  Weight decay belongs to the base optimiser and is in
neither gradient.  Adaptive form (ASAM, Kwon et al. 2021, arXiv:2102.11600): the ball is measured in T^-1 e with
T = diag(|w|), so e = T e'(T g); without the small constant that ASAM's authors add to |w|.

`sam_gradient` is the rule for functional training (`torch.func`), `SAM` the optimiser for modules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["SAM", "frozen_statistics", "m_sharpness_gradient", "sam_gradient", "sam_perturbation", "sharpness"]

Params = dict[str, Tensor]


def _unit_ascent(gradients: Sequence[Tensor], p: float, eps: float) -> tuple[list[Tensor], Tensor]:
    """Direction of eq. 2, p-norm 1 over all tensors (zero for zero gradients), and the dual norm ||g||_q."""
    if not p > 1:
        raise ValueError(f"p must be above 1 (math.inf allowed), got {p}")
    q = 1.0 if math.isinf(p) else p / (p - 1)
    where = gradients[0].device
    # Norms in float32 at least: the square of a half-precision gradient soon overflows.
    wide = [torch.promote_types(g.dtype, torch.float32) for g in gradients]
    norms = [torch.linalg.vector_norm(g, q, dtype=d).to(where) for g, d in zip(gradients, wide, strict=True)]
    norm = torch.linalg.vector_norm(torch.stack(norms), q)
    scale = 1.0 / (norm + eps)
    ratios = [g.to(d) * scale.to(g.device, d) for g, d in zip(gradients, wide, strict=True)]
    if q != 2:
        # |g|^(q-1) / (||g||_q^q)^(1/p) = (|g| / ||g||_q)^(q-1), which neither overflows nor underflows.
        ratios = [ratio.sign() * ratio.abs() ** (q - 1) for ratio in ratios]
    return [ratio.to(g.dtype) for ratio, g in zip(ratios, gradients, strict=True)], norm


def sam_perturbation(
    grads: Mapping[str, Tensor],
    rho: float | Tensor,
    eps: float = 1e-12,
    p: float = 2.0,
    weights: Mapping[str, Tensor] | None = None,
) -> Params:
    """First-order worst perturbation in the p-ball of radius rho (eq. 2), one norm over all parameters.

    Args:
        grads: name -> gradient, any shapes.
        rho: radius, at least 0; a 0-d tensor works too, also under `torch.func.vmap` (then it is not checked).
        eps: added to the norm, so that zero gradients give a zero perturbation.
        p: of the norm that bounds the perturbation; above 1, `math.inf` allowed.
        weights: name -> weight of the same shapes; given, the ball is ASAM's, scaled by |w|.

    Returns:
        name -> perturbation; its p-norm is rho (up to eps) unless all gradients are zero. A NaN spreads to the whole
        perturbation; beside an infinite entry, which becomes NaN, the rest is zero.

    Raises:
        ValueError: no gradients, p not above 1, rho a negative number.
    """
    if not grads:
        raise ValueError("no gradients to build a perturbation from")
    if isinstance(rho, (int, float)) and not rho >= 0:
        raise ValueError(f"rho must be at least 0, got {rho}")
    scales = {name: weights[name].abs() for name in grads} if weights is not None else {}
    unit, _ = _unit_ascent([g * scales[n] if scales else g for n, g in grads.items()], p, eps)
    steps = ((rho.to(d) if isinstance(rho, Tensor) else rho) * d for d in unit)
    return {name: scales[name] * step if scales else step for name, step in zip(grads, steps, strict=True)}


def sam_gradient(
    loss_of_params: Callable[[Params], Tensor],
    params: Params,
    rho: float | Tensor,
    eps: float = 1e-12,
    p: float = 2.0,
    adaptive: bool = False,
) -> tuple[Params, Tensor]:
    """Gradient at the first-order worst neighbour of the weights (eq. 3).

    Pure; works under `torch.func.vmap`.

    Args:
        loss_of_params: parameters -> scalar mean loss, without weight decay.
        params: name -> tensor; not changed.
        rho: radius; 0 gives the plain gradient.
        eps: see `sam_perturbation`.
        p: see `sam_perturbation`.
        adaptive: ASAM's ball instead of the Euclidean one.

    Returns:
        Gradients by name, and the loss at the *unperturbed* weights; NaN spreads.

    Raises:
        ValueError: as `sam_perturbation`.
    """
    derivative = torch.func.grad_and_value(loss_of_params)
    grads, loss = derivative(params)
    step = sam_perturbation(grads, rho, eps, p, params if adaptive else None)
    # Detached: the derivative of e(w) by w is dropped (section 2 of the paper).
    worst = {name: weight + step[name].detach() for name, weight in params.items()}
    return derivative(worst)[0], loss


def m_sharpness_gradient(
    loss_of_params: Callable[..., Tensor],
    params: Params,
    rho: float | Tensor,
    m: int,
    batch_size: int,
    **options: Any,
) -> tuple[Params, Tensor]:
    """SAM with a perturbation of its own for every m samples, gradients averaged (m-sharpness, section 4.1).

    Args:
        loss_of_params: ``(params, rows) -> scalar`` mean loss over a slice of the batch's samples.
        params: name -> tensor; not changed.
        rho: radius.
        m: samples a sub-batch; the last one may be smaller, and m from `batch_size` on is plain SAM.
        batch_size: number of samples in the batch.
        options: of `sam_gradient`.

    Returns:
        (gradients, loss at the unperturbed weights), both averaged over the samples.

    Raises:
        ValueError: m or the batch size below 1, or as `sam_gradient`.
    """
    if m < 1 or batch_size < 1:
        raise ValueError(f"m and batch_size must be at least 1, got {m} and {batch_size}")
    mean: Params = {}
    mean_loss = torch.zeros(())
    for start in range(0, batch_size, m):
        rows = slice(start, min(start + m, batch_size))
        grads, loss = sam_gradient(partial(loss_of_params, rows=rows), params, rho, **options)
        share = (rows.stop - rows.start) / batch_size
        mean = {name: share * grad + mean.get(name, 0.0) for name, grad in grads.items()}
        mean_loss = share * loss + mean_loss.to(loss)
    return mean, mean_loss


def sharpness(loss_of_params: Callable[[Params], Tensor], params: Params, rho: float | Tensor) -> Tensor:
    """Sharpness max_{||e||_2 <= rho} L(w + e) - L(w), with the first-order maximiser e(w) of eq. 2.

    Args:
        loss_of_params: parameters -> scalar loss, usually on the whole training set.
        params: name -> tensor.
        rho: radius.
    """
    grads, loss = torch.func.grad_and_value(loss_of_params)(params)
    step = sam_perturbation(grads, rho)
    rise: Tensor = loss_of_params({name: weight + step[name] for name, weight in params.items()}) - loss
    return rise


@contextmanager
def frozen_statistics(model: nn.Module | None) -> Iterator[None]:
    """Normalise by the batch but leave running statistics alone (second pass of SAM; None: nothing to freeze)."""
    layers = [layer for layer in model.modules() if isinstance(layer, _NormBase)] if model is not None else []
    tracking = [layer for layer in layers if layer.training and layer.track_running_stats]
    try:
        for layer in tracking:
            layer.track_running_stats = False
        yield
    finally:
        for layer in tracking:
            layer.track_running_stats = True


class SAM(torch.optim.Optimizer):
    """Sharpness-aware wrapper around a base optimiser (algorithm 1).

    ``SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)``; then ``optimizer.step(closure)``
    with a closure that clears the gradients, computes the loss on *one* batch, calls `backward` and returns the loss.
    It is called twice; random numbers (dropout) repeat in the second call.  For methods that mix gradients at the
    perturbed and the unperturbed weights: `ascend`, `restore` and ``base_optimizer.step()``.

    Args:
        params: parameters or groups; a group may set its own `rho` and `adaptive` (the norm is over all groups).
        base_optimizer: class (or callable) that makes the optimiser from groups and `base_options`.
        rho: radius, at least 0. ``group["rho"]`` may be changed between steps.
        adaptive: ASAM's ball.
        p: of the norm, above 1.
        eps: added to the norm.
        model: its running statistics (batch norm) are then updated in the first pass only.
        base_options: for the base optimiser, e.g. lr, momentum, weight_decay.

    Raises:
        ValueError: rho negative or not finite, p not above 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., torch.optim.Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        p: float = 2.0,
        eps: float = 1e-12,
        model: nn.Module | None = None,
        **base_options: Any,
    ) -> None:
        if not p > 1:
            raise ValueError(f"p must be above 1 (math.inf allowed), got {p}")
        self.p, self.eps, self.model = p, eps, model
        self._origin: list[tuple[Tensor, Tensor]] = []
        super().__init__(params, {"rho": rho, "adaptive": adaptive})
        self.base_optimizer = base_optimizer(self.param_groups, **base_options)
        self.defaults.update(self.base_optimizer.defaults)
        self._share()

    def _share(self) -> None:
        """Groups and state are one with those of the base optimiser, so schedulers and checkpoints see both."""
        self.base_optimizer.param_groups = self.param_groups
        self.base_optimizer.state = self.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see `torch.optim.Optimizer.add_param_group`."""
        rho = param_group.get("rho", self.defaults["rho"])
        if not 0 <= rho < math.inf:
            raise ValueError(f"rho must be finite and at least 0, got {rho}")
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load groups (with rho) and the base optimiser's state."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def ascend(self) -> None:
        """Move the weights to the worst neighbour by the gradients that they hold (once, until `restore`).

        Raises:
            RuntimeError: already ascended, no gradients, sparse gradients.
            FloatingPointError: a gradient is not finite; the weights are left as they were.
        """
        if self._origin:
            raise RuntimeError("the weights are at the perturbed point already: call restore() first")
        held = [(group, w, w.grad) for group in self.param_groups for w in group["params"] if w.grad is not None]
        if not held:
            raise RuntimeError("no parameter has a gradient: the closure must call backward()")
        if any(g.is_sparse for _, _, g in held):
            raise RuntimeError("sparse gradients are not supported")
        unit, norm = _unit_ascent([g * w.abs() if group["adaptive"] else g for group, w, g in held], self.p, self.eps)
        if not math.isfinite(norm):  # one bad gradient would destroy every weight
            raise FloatingPointError("a gradient is not finite (NaN or infinity); the weights were left as they were")
        for (group, w, _), direction in zip(held, unit, strict=True):
            self._origin.append((w, w.clone()))
            sign = -1.0 if group.get("maximize") else 1.0
            w.add_(direction * w.abs() if group["adaptive"] else direction, alpha=sign * group["rho"])

    @torch.no_grad()
    def restore(self) -> None:
        """Put the weights back, bit for bit; gradients stay."""
        for weight, before in self._origin:
            weight.copy_(before)
        self._origin.clear()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One SAM step; returns the loss at the unperturbed weights. The weights are restored if the closure fails.

        Raises:
            ValueError: no closure.
            RuntimeError, FloatingPointError: as `ascend`.
        """
        if closure is None:
            raise ValueError("SAM needs step(closure): the loss is evaluated twice on the same batch")
        devices = sorted({w.device.index for g in self.param_groups for w in g["params"] if w.is_cuda})
        cpu_state, cuda_states = torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in devices]
        with torch.enable_grad():
            loss = closure()
        self.ascend()
        try:
            torch.set_rng_state(cpu_state)
            for device, state in zip(devices, cuda_states, strict=True):
                torch.cuda.set_rng_state(state, device)
            with torch.enable_grad(), frozen_statistics(self.model):
                closure()
        finally:
            self.restore()
        self.base_optimizer.step()
        return loss
