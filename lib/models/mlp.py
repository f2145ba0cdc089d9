"""Multilayer perceptron, plain or with skips around its hidden layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["MLP"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "identity": lambda x: x,
}


class MLP(nn.Module):
    r"""Fully connected layers with an activation between them, in torch's default initialisation.

    With layer sizes :math:`n_0, \dots, n_L`: :math:`h_0 = x`, :math:`h_i = \phi(W_i h_{i-1} + b_i)` for
    :math:`0 < i < L`, and the output is :math:`W_L h_{L-1} + b_L`.  With `residual`, hidden layers that keep
    the width (:math:`n_i = n_{i-1}`, from the second on) add their input:
    :math:`h_i = h_{i-1} + \phi(W_i h_{i-1} + b_i)`.

    No dropout and no batch normalisation, so that it trains under `torch.func.vmap` as it does alone.

    Args:
        sizes: of the input, the hidden layers and the output, e.g. ``[64, 128, 10]``.
        activation: "relu", "tanh", "gelu", "silu" or "identity" (a linear network).
        residual: add the skips.

    Shape:
        (..., n_0) -> (..., n_L); images of more dimensions are not flattened, see `nn.Flatten`.

    Raises:
        ValueError: fewer than two sizes, a size below 1, or an unknown activation.
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu", residual: bool = False) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes: need at least input and output, all positive; got {list(sizes)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation!r}: one of {', '.join(ACTIVATIONS)}")
        self.activation = activation
        self.residual = residual
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees: (..., n_0) -> (..., n_{L-1})."""
        act = ACTIVATIONS[self.activation]
        for index, layer in enumerate(list(self.layers)[:-1]):
            out = act(layer(x))
            x = x + out if self.residual and index > 0 and out.shape == x.shape else out
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (logits), shape (..., n_L)."""
        return self.layers[-1](self.features(x))  # type: ignore[no-any-return]
