"""The update of a stack against `torch.optim`, one optimiser a run, and first steps by hand."""

import pytest
import torch

from lib.trainers import SGD, Adam, AdamW

RATES, DECAYS = (0.1, 0.01, 0.5), (0.0, 0.1, 0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "optimiser",
    [
        SGD(),
        SGD(momentum=0.9),
        SGD(momentum=0.9, nesterov=True),
        Adam(),
        Adam(beta1=0.5, beta2=0.9, eps=1e-3),
        AdamW(),
    ],
    ids=repr,
)
def test_parity_rows_with_torch(optimiser, dtype):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 7, dtype=dtype, generator=generator)
    theirs = [row.clone().requires_grad_() for row in rows]
    torches = [optimiser.torch([row], lr, decay) for row, lr, decay in zip(theirs, RATES, DECAYS, strict=True)]
    lr, decay = (torch.tensor(values, dtype=dtype)[:, None] for values in (RATES, DECAYS))
    state = optimiser.state(rows)
    for step in range(1, 30):
        grad = torch.randn(3, 7, dtype=dtype, generator=generator)
        for row, single, g in zip(theirs, torches, grad, strict=True):
            row.grad = g.clone()
            single.step()
        optimiser.update(rows, grad, state, step, lr, decay)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(rows, torch.stack([row.detach() for row in theirs]), rtol=tolerance, atol=tolerance)


def test_value_by_hand_first_steps():
    lr = torch.tensor([[0.1]], dtype=torch.float64)
    rows = torch.tensor([[1.0]], dtype=torch.float64)
    sgd = SGD(momentum=0.5)
    state = sgd.state(rows)
    for step, expected in ((1, 0.8), (2, 0.5)):  # velocity 2, then 0.5 * 2 + 2 = 3
        sgd.update(rows, torch.full_like(rows, 2.0), state, step, lr, None)
        assert rows.item() == pytest.approx(expected, abs=1e-12)

    rows = torch.tensor([[1.0]], dtype=torch.float64)
    adam = Adam(eps=0.0)
    adam.update(rows, torch.full_like(rows, -3.0), adam.state(rows), 1, lr, None)
    assert rows.item() == pytest.approx(1.1, abs=1e-12)  # the first step has length lr, whatever the gradient

    rows = torch.tensor([[1.0]], dtype=torch.float64)
    adamw = AdamW()
    adamw.update(rows, torch.zeros_like(rows), adamw.state(rows), 1, lr, torch.full_like(lr, 0.2))
    assert rows.item() == pytest.approx(0.98, abs=1e-12)  # decay alone: 1 - lr * 0.2


def test_limit_no_momentum_is_plain_descent():
    rows, lr = torch.ones(2, 3), torch.tensor([[0.1], [0.2]])
    SGD().update(rows, torch.ones(2, 3), SGD().state(rows), 1, lr, None)
    torch.testing.assert_close(rows, torch.tensor([[0.9] * 3, [0.8] * 3]))
