import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.functional import jacobian

from lib import runtime
from lib.losses import LegendreLink, LegendreTron, legendre_loss, scores_for
from lib.trainers import Adam, Method, train_paired


def link(*args, seed=0, spread=0.3):
    """A link in float64 whose parameters have moved away from their initial values."""
    with runtime.isolated(seed):
        module = LegendreLink(*args).double()
        for parameter in module.parameters():
            parameter.data += spread * torch.randn_like(parameter)
        module.calibrate(torch.randn(100, args[1], dtype=torch.float64))
    return module


def scores(n, dim, seed=1):
    return 2 * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distributions(n, classes, seed=2):
    random = torch.Generator().manual_seed(seed)
    weights = -torch.rand(n, classes, generator=random, dtype=torch.float64).log()
    return weights / weights.sum(-1, keepdim=True)


def test_value_by_hand_identity_link():
    """C = 3 and s = (log 2, log 3): p = (2, 3, 1) / 6."""
    s = torch.tensor([[math.log(2), math.log(3)]], dtype=torch.float64)
    logits = LegendreLink(0, 2)(s)
    assert logits.softmax(-1).tolist()[0] == pytest.approx([1 / 3, 1 / 2, 1 / 6])
    losses = [legendre_loss(logits, torch.tensor([y])).item() for y in range(3)]
    assert losses == pytest.approx([math.log(3), math.log(2), math.log(6)])


def test_limit_blocks_without_network_are_cross_entropy():
    """w1 -> -infinity and softplus(w0) = 1 make each block the identity: cross-entropy of the logits (s, 0)."""
    learnt, s = link(2, 4), scores(30, 4)
    y = torch.arange(30) % 5
    for block in learnt.blocks:
        block.w1.data.fill_(-60.0)
        block.w0.data.fill_(math.log(math.e - 1))
    expected = F.cross_entropy(torch.cat([s, torch.zeros(30, 1)], 1), y)
    torch.testing.assert_close(legendre_loss(learnt(s), y), expected)


def test_limit_blocks_without_network_are_a_temperature():
    """With any other w0 the link is softmax at temperature 1 / prod softplus(w0)."""
    learnt, s = link(2, 4), scores(30, 4)
    scale = 1.0
    for block in learnt.blocks:
        block.w1.data.fill_(-60.0)
        scale *= F.softplus(block.w0).item()
    torch.testing.assert_close(learnt(s)[:, :-1], scale * s)


def test_parity_log_probabilities_with_the_definition():
    """p_k = exp(t_k) / (1 + sum exp t_j) written out, the last class with a one."""
    learnt, s = link(2, 3), scores(10, 3)
    logits = learnt(s)
    weights = logits[:, :-1].exp()
    expected = torch.cat([weights, torch.ones(10, 1)], 1) / (1 + weights.sum(-1, keepdim=True))
    torch.testing.assert_close(logits.softmax(-1), expected)
    torch.testing.assert_close(expected.sum(-1), torch.ones(10, dtype=torch.float64))


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_invariance_proper_whatever_the_link(classes):
    """The minimiser of the conditional risk over the scores gives the true distribution."""
    q = distributions(10, classes)
    for seed in range(3):
        learnt = link(2, classes - 1, seed=seed)
        found = learnt(scores_for(learnt, q)).softmax(-1)
        assert (found - q).abs().max() < 1e-8


def test_parity_scores_of_the_identity_link():
    """Without blocks the minimiser is known: s_k = log(p_k / p_C)."""
    q = distributions(20, 4)
    torch.testing.assert_close(scores_for(LegendreLink(0, 3), q), (q[:, :-1] / q[:, -1:]).log(), rtol=1e-4, atol=1e-4)


def test_invariance_one_block_is_a_gradient_two_are_not():
    """Jacobians: symmetric for one block, of positive determinant for any number, in general not symmetric for two."""
    one, two, s = link(1, 4), link(2, 4, spread=1.0), scores(1, 4)[0]
    slope, product = (jacobian(lambda row, m=m: m(row[None])[0, :-1], s) for m in (one, two))
    assert (slope - slope.T).abs().max() < 1e-10
    assert torch.linalg.det(slope) > 0
    assert torch.linalg.det(product) > 0
    assert (product - product.T).abs().max() > 1e-6


def test_invariance_calibration_depends_on_the_given_scores():
    learnt, s = link(1, 3), scores(200, 3)
    learnt.calibrate(s)
    before = learnt(s)
    learnt.calibrate(s)
    torch.testing.assert_close(learnt(s), before)
    learnt.calibrate(10 * s)
    assert not torch.allclose(learnt(s), before)


@pytest.mark.parametrize("blocks", [0, 2])
def test_gradcheck(blocks):
    learnt, y = link(blocks, 2), torch.tensor([0, 1, 2, 1])
    assert torch.autograd.gradcheck(lambda s: legendre_loss(learnt(s), y), (scores(4, 2).requires_grad_(),))


def test_parity_stacked_training_and_plain_loop():
    """`torch.func` and autograd differentiate twice to the same numbers: equal losses for twelve steps."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(24) % 3
    data = torch.randn(24, 4, generator=random) + 2 * F.one_hot(y, 4), y
    histories = [
        train_paired(
            lambda: LegendreTron(4, 3, 2, 4, 2),
            [Method("LegendreTron", legendre_loss, weight_decay=0.01)],
            data,
            seeds=[0, 1],
            optimiser=Adam(0.01),
            epochs=4,
            batch_size=8,
            vectorised=stacked,
            device="cpu",
        ).history["LegendreTron"]
        for stacked in (True, False)
    ]
    torch.testing.assert_close(histories[0], histories[1], rtol=1e-3, atol=1e-4)
    assert (histories[0][:, -1] < histories[0][:, 0]).all()


def test_degenerate():
    model = LegendreTron(3, 4)
    assert model(torch.zeros(0, 3)).shape == (0, 4)
    assert legendre_loss(model(torch.zeros(0, 3)), torch.zeros(0, dtype=torch.long)).isnan()
    assert model(1e4 * torch.ones(1, 3)).log_softmax(-1).isfinite().all()
    assert model(torch.tensor([[torch.nan, 0.0, 0.0], [0.0, 0.0, 0.0]])).isnan().any(1).tolist() == [True, False]
    assert LegendreTron(3, 2)(torch.zeros(5, 3)).shape == (5, 2)
    for make, message in [(lambda: LegendreTron(3, 1), "classes"), (lambda: LegendreLink(-1, 2), "n_blocks")]:
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dtype_device(dtype):
    exact, s = link(2, 3), scores(6, 3)
    logits = link(2, 3).to(dtype)(s.to(dtype))
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.double(), exact(s), rtol=0, atol=1000 * torch.finfo(dtype).eps)
