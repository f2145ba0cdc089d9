"""Counted operations against numbers by hand, and against torch's own counter of floating-point operations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib.metrics import count_operations


def test_value_by_hand():
    a, b, rows = torch.randn(4, 6), torch.randn(6, 5), torch.tensor([0, 3, 3])
    assert count_operations(lambda: a @ b) == 4 * 6 * 5
    assert count_operations(lambda: a.sum()) == 24  # reads 24, writes 1
    assert count_operations(lambda: a[rows]) == 18
    assert count_operations(lambda: a.t().reshape(4, 6).detach()) == 24  # the reshape copies, the rest are views
    assert count_operations(lambda: a.view(24).unsqueeze(0)) == 0
    assert count_operations(lambda: None) == 0


def test_value_by_hand_backward():
    """y = x W: one product forward, one for each gradient; ones for the sum, and its expansion is a view."""
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    assert count_operations(lambda: (x @ w).sum().backward()) == 3 * 60 + 15 + 1


def test_parity_with_torch_on_products():
    a, b = torch.randn(7, 3, 4), torch.randn(7, 4, 5)
    with FlopCounterMode(display=False) as counter:
        torch.bmm(a, b)
    assert 2 * count_operations(lambda: torch.bmm(a, b)) == counter.get_total_flops()


@pytest.mark.parametrize("classes", [10, 1000])
def test_invariance_to_the_device(classes):
    def cost(device):
        h = torch.zeros(8, 16, device=device, requires_grad=True)
        w, y = torch.zeros(16, classes, device=device), torch.zeros(8, dtype=torch.long, device=device)
        return count_operations(lambda: torch.nn.functional.cross_entropy(h @ w, y).backward())

    assert cost("cpu") == cost("meta") > 2 * 8 * 16 * classes
