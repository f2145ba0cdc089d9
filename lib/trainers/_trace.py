"""A function of tensors recorded once and replayed without the overhead of `torch.func`.

`vmap` and `grad` decide anew in every step what each operation means for a stack, although that depends on
shapes only.  `torch.fx` records the operations that result; replaying them costs a fifth of the overhead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

Function = Callable[..., tuple[Tensor, ...]]
aten = torch.ops.aten
VIEWS = {aten.view.default, aten._unsafe_view.default, aten.expand.default}


def record(function: Function, args: tuple[Tensor, ...]) -> Function:
    """The operations of ``function(*args)`` as a function for further tensors of the same shapes.

    Python code of the function runs now and not later, so it may depend neither on values (`vmap` forbids that
    anyway) nor on state that changes.  What cannot be recorded is returned as it is.
    """
    on_cpu = all(value.device.type == "cpu" for value in args)
    try:
        graph = make_fx(function, decomposition_table=CPU_FORMULAS if on_cpu else None)(*args)
    except Exception:  # a fault of the function itself shows when it is called
        return function
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    if not any(getattr(node.target, "_schema", None) and node.target._schema.is_mutable for node in nodes):
        for node in nodes:
            if _changes_nothing(node):
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
        graph.recompile()
    return graph.forward  # type: ignore[no-any-return]


def _changes_nothing(node: fx.Node) -> bool:
    """Views and expansions to the shape that is there already, and factors of one: `vmap` puts many of them in."""
    if node.target not in VIEWS and not (node.target is aten.mul.Scalar and node.args[1] == 1):
        return False
    before, after = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    return bool(before.shape == after.shape and before.dtype == after.dtype)


def _log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    shifted = x - x.amax(dim, keepdim=True)
    return shifted - shifted.exp().sum(dim, keepdim=True).log()


def _log_softmax_backward(grad: Tensor, output: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return grad - output.exp() * grad.sum(dim, keepdim=True)


CPU_FORMULAS: dict[Any, Callable[..., Any]] = {
    aten._log_softmax.default: _log_softmax,
    aten._log_softmax_backward_data.default: _log_softmax_backward,
}
"""Where classes are few, torch's kernels for the CPU take three times as long as these formulas."""
