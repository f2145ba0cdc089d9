"""What a computation costs, counted instead of timed: the same number on every machine and in every run.

A matrix product counts its multiply-adds, any other operation the elements that it reads or writes, whichever are more;
looking rows up counts what is looked up, and a new view of old memory nothing.  Tensors on the device "meta" are
counted without being computed, so that sizes are no obstacle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["count_operations"]

_ATEN = torch.ops.aten
_PRODUCTS = {_ATEN.mm, _ATEN.addmm, _ATEN.bmm, _ATEN.baddbmm, _ATEN.mv, _ATEN.dot}
_FREE = {_ATEN.detach, _ATEN._unsafe_view}
_LOOKUPS = {_ATEN.index, _ATEN.index_select, _ATEN.gather, _ATEN.embedding, _ATEN.nll_loss_forward}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name, tensors = func.overloadpacket, [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        written = sum(tensor.numel() for tensor in made)
        if func.is_view or name in _FREE:
            return out
        if name in _PRODUCTS:
            self.total += written * tensors[-2].shape[-1]
        elif name in _LOOKUPS:
            self.total += written
        else:
            self.total += max([written, *(tensor.numel() for tensor in tensors)])
        return out


def count_operations(function: Callable[[], object]) -> int:
    """Multiply-adds and elements touched while `function()` runs, its backward passes included.

    Args:
        function: of no arguments; tensors made before the call cost nothing.

    >>> count_operations(lambda: torch.ones(2, 3, device="meta") @ torch.ones(3, 5, device="meta"))
    51
    """
    counter = _Counter()
    with counter:
        function()
    return counter.total
