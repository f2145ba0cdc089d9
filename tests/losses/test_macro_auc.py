import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from lib._torchvision import torchvision
from lib.losses import MacroAUCLoss, pairwise_auc_loss, reweighted_auc_loss, univariate_auc_loss
from lib.losses.macro_auc import BASES, KINDS, macro_auc

BASE_NAMES = tuple(BASES)


def batch(n=40, rates=(0.5, 0.3, 0.1, 0.05), dtype=torch.float64, seed=0):
    """Scores and labels, every label with both sides."""
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(n, len(rates), generator=generator, dtype=dtype)
    labels = (torch.rand(n, len(rates), generator=generator) < torch.tensor(rates)).long()
    labels[0], labels[1] = 0, 1
    return scores, labels


def over_pairs(scores, labels, function):
    """A double loop over the pairs of every label that has some."""
    means = []
    for s, y in zip(scores.T, labels.T, strict=True):
        values = [function(a - b) for a in s[y == 1] for b in s[y == 0]]
        if values:
            means.append(torch.stack(values).mean())
    return torch.stack(means).mean()


# --- by hand ------------------------------------------------------------------


def test_value_by_hand():
    """Positives 2 and 1, one negative 0: log(1 + e^-2) = 0.12693, log(1 + e^-1) = 0.31326, log 2 = 0.69315."""
    scores, labels = torch.tensor([[2.0], [1.0], [0.0]]), torch.tensor([[1], [1], [0]])
    assert pairwise_auc_loss(scores, labels).item() == pytest.approx((0.12693 + 0.31326) / 2, abs=1e-5)
    assert reweighted_auc_loss(scores, labels).item() == pytest.approx(0.22009 + 0.69315, abs=1e-5)
    assert univariate_auc_loss(scores, labels).item() == pytest.approx((0.12693 + 0.31326 + 0.69315) / 3, abs=1e-5)


@pytest.mark.parametrize(
    ("base", "gaps", "expected"),
    [("hinge", (0.5, 1.5), 0.25), ("squared", (0.5, 2.0), 0.625), ("exponential", (0.0, math.log(2)), 0.75)],
)
def test_value_by_hand_other_bases(base, gaps, expected):
    """Two pairs each: (1/2 + 0) / 2, (1/4 + 1) / 2 and (1 + 1/2) / 2."""
    scores = torch.tensor([[gaps[0]], [gaps[1]], [0.0]])
    assert pairwise_auc_loss(scores, torch.tensor([[1], [1], [0]]), base).item() == pytest.approx(expected)


def test_value_by_hand_macro_auc():
    """First label: of four pairs two are right, one tied, one wrong; the second has no negative and is left out."""
    scores = torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    labels = torch.tensor([[1, 1], [1, 1], [0, 1], [0, 1]])
    assert macro_auc(scores, labels).item() == 2.5 / 4
    each = macro_auc(scores, labels, per_label=True)
    assert each[0] == 2.5 / 4
    assert each[1].isnan()


# --- parity -------------------------------------------------------------------


@pytest.mark.parametrize("base", BASE_NAMES)
@pytest.mark.parametrize("block_size", [None, 1, 7])
def test_parity_double_loop(base, block_size):
    scores, labels = batch()
    scores.requires_grad_()
    ours = pairwise_auc_loss(scores, labels, base, block_size)
    loop = over_pairs(scores, labels, BASES[base])
    torch.testing.assert_close(ours, loop)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (ours, loop)))


def test_parity_macro_auc_peers():
    metrics = pytest.importorskip("sklearn.metrics")
    torchvision()
    torchmetrics = pytest.importorskip("torchmetrics.classification")
    scores, labels = batch(200)
    tied = scores.round()
    for s in (scores, tied):
        assert macro_auc(s, labels).item() == pytest.approx(metrics.roc_auc_score(labels.numpy(), s.numpy()))
    peer = torchmetrics.MultilabelAUROC(num_labels=4, average="none")
    torch.testing.assert_close(macro_auc(tied, labels, per_label=True).float(), peer(tied.sigmoid(), labels))


def test_parity_binary_cross_entropy():
    scores, labels = batch()
    expected = F.binary_cross_entropy_with_logits(scores, labels.double())
    torch.testing.assert_close(univariate_auc_loss(scores, labels), expected)


# --- limits and identities ----------------------------------------------------


@pytest.mark.parametrize("base", BASE_NAMES)
def test_limit_balanced_label_makes_reweighted_twice_univariate(base):
    scores, labels = batch(30, (0.5,))
    labels[:15], labels[15:] = 1, 0
    torch.testing.assert_close(reweighted_auc_loss(scores, labels, base), 2 * univariate_auc_loss(scores, labels, base))


def test_limit_steep_logistic_is_a_hinge_without_margin():
    """l(ct)/c -> max(0, -t) as c grows: of four pairs one is wrong, by 1."""
    labels = torch.tensor([[1], [1], [0], [0]])
    scores = torch.tensor([[1.0], [0.0], [1.0], [0.0]], dtype=torch.float64)  # gaps 0, 1, -1, 0
    steep = pairwise_auc_loss(1e6 * scores, labels) / 1e6
    assert steep.item() == pytest.approx(1 / 4, abs=1e-5)
    assert macro_auc(scores, labels).item() == 1 / 2  # one right, one wrong, two ties


def least_over_bias(function, scores, labels):
    """Minimum over one added constant, by a fine search around the best of a coarse one."""
    grid = torch.linspace(-8, 8, 321, dtype=torch.float64)
    for _ in range(4):
        values = torch.stack([function(scores + c, labels) for c in grid])
        best = grid[values.argmin()]
        grid = best + (grid - grid.mean()) / 50
    return values.min()


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_limit_exponential_univariate_with_a_bias_is_pairwise(rate):
    """Least L_u1(f + b) over b: 2 sqrt(tau (1 - tau) L_pa(f)); least L_u2: 2 sqrt(L_pa). So all share a minimiser."""
    scores, labels = batch(40, (rate,))
    tau = labels.double().mean()
    pairs = pairwise_auc_loss(scores, labels, "exponential")
    u1 = least_over_bias(lambda s, y: univariate_auc_loss(s, y, "exponential"), scores, labels)
    u2 = least_over_bias(lambda s, y: reweighted_auc_loss(s, y, "exponential"), scores, labels)
    torch.testing.assert_close(u1, 2 * (tau * (1 - tau) * pairs).sqrt(), rtol=1e-6, atol=0)
    torch.testing.assert_close(u2, 2 * pairs.sqrt(), rtol=1e-6, atol=0)


def test_limit_squared_reweighted_with_a_bias():
    """With the gap D of the two means: min over b of L_u2 = L_pa - (1 - D)^2 + (2 - D)^2 / 2."""
    scores, labels = batch(40, (0.2,))
    gap = scores[labels == 1].mean() - scores[labels == 0].mean()
    expected = pairwise_auc_loss(scores, labels, "squared") - (1 - gap) ** 2 + (2 - gap) ** 2 / 2
    u2 = least_over_bias(lambda s, y: reweighted_auc_loss(s, y, "squared"), scores, labels)
    torch.testing.assert_close(u2, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("base", BASE_NAMES)
def test_limit_surrogate_bounds_the_auc(base):
    """l(t) >= 1[t <= 0] for hinge, squared, exponential and log_2: so L_pa bounds 1 - Macro-AUC."""
    scores, labels = batch()
    scale = math.log(2) if base == "logistic" else 1.0
    assert pairwise_auc_loss(scores, labels, base) / scale >= 1 - macro_auc(scores, labels)


# --- invariances --------------------------------------------------------------


@pytest.mark.parametrize("base", BASE_NAMES)
def test_invariance_constant_per_label(base):
    scores, labels = batch()
    moved = scores + torch.tensor([3.0, -1.0, 0.5, 2.0])
    torch.testing.assert_close(pairwise_auc_loss(moved, labels, base), pairwise_auc_loss(scores, labels, base))
    assert (univariate_auc_loss(moved, labels, base) - univariate_auc_loss(scores, labels, base)).abs() > 1e-3
    assert (reweighted_auc_loss(moved, labels, base) - reweighted_auc_loss(scores, labels, base)).abs() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASE_NAMES)
def test_invariance_order_copies_and_swap_of_sides(kind, base):
    scores, labels = batch()
    loss = MacroAUCLoss(kind, base)
    once = loss(scores, labels)
    order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(scores[order], labels[order]), once)
    torch.testing.assert_close(loss(scores.repeat(3, 1), labels.repeat(3, 1)), once)
    torch.testing.assert_close(loss(-scores, 1 - labels), once)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASE_NAMES)
def test_invariance_stack_of_models(kind, base):
    scores, labels = batch()
    stack = torch.stack([scores, 0.5 * scores])
    together = vmap(grad(lambda s: KINDS[kind](s, labels, base)))(stack)
    for own, gradient in zip(stack, together, strict=True):
        alone = own.clone().requires_grad_()
        KINDS[kind](alone, labels, base).backward()
        torch.testing.assert_close(gradient, alone.grad)


def test_invariance_macro_auc_of_a_stack_and_of_monotone_maps():
    scores, labels = batch()
    both = macro_auc(torch.stack([scores, -scores]), labels)
    torch.testing.assert_close(both[0], macro_auc(scores.exp(), labels))
    torch.testing.assert_close(both.sum(), torch.tensor(1.0, dtype=torch.float64))


# --- gradients ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASE_NAMES)
def test_gradcheck(kind, base):
    scores, labels = batch(8, (0.5, 0.2))
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: KINDS[kind](s, labels, base), (scores,))
    if base in ("squared", "exponential"):
        assert torch.autograd.gradgradcheck(lambda s: KINDS[kind](s, labels, base), (scores,))


def test_gradcheck_second_derivative_of_streamed_pairs_is_refused():
    scores, labels = batch(8, (0.5,))
    scores.requires_grad_()
    (gradient,) = torch.autograd.grad(pairwise_auc_loss(scores, labels), scores, create_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        gradient.square().sum().backward()


# --- degenerate input ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["pairwise", "reweighted"])
@pytest.mark.parametrize("base", BASE_NAMES)
def test_degenerate_one_sided_label_is_left_out(kind, base):
    scores, labels = batch()
    wider = torch.cat([scores, scores[:, :1]], dim=1).requires_grad_()
    loss = KINDS[kind](wider, F.pad(labels, (0, 1)), base)
    torch.testing.assert_close(loss, KINDS[kind](scores, labels, base))
    loss.backward()
    assert wider.grad is not None
    assert wider.grad.isfinite().all()
    assert (wider.grad[:, -1] == 0).all()


@pytest.mark.parametrize("base", BASE_NAMES)
@pytest.mark.parametrize("n", [0, 1])
def test_degenerate_no_pair(base, n):
    scores = torch.ones(n, 2, requires_grad=True)
    labels = torch.ones(n, 2)
    for kind in ("pairwise", "reweighted"):
        loss = KINDS[kind](scores, labels, base)
        (gradient,) = torch.autograd.grad(loss, scores)
        assert loss == 0
        assert (gradient == 0).all()
    assert univariate_auc_loss(scores, labels, base).isnan() == (n == 0)
    assert macro_auc(scores, labels).isnan()
    assert macro_auc(scores, labels, per_label=True).isnan().tolist() == [True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_huge_scores(dtype):
    scores = torch.tensor([[1e4], [-1e4]], dtype=dtype, requires_grad=True)
    for labels, expected in (([[1], [0]], 0.0), ([[0], [1]], 2e4)):
        loss = pairwise_auc_loss(scores, torch.tensor(labels))
        (gradient,) = torch.autograd.grad(loss, scores)
        assert loss.item() == expected
        assert gradient.flatten().tolist() == ([0, 0] if expected == 0 else [1, -1])
    shifted = torch.tensor([[900.0], [899.0]], dtype=dtype)  # e^900 overflows, the ratio does not
    exponential = pairwise_auc_loss(shifted, torch.tensor([[1], [0]]), "exponential")
    assert exponential.item() == pytest.approx(math.exp(-1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASE_NAMES)
def test_degenerate_nan(kind, base):
    scores, labels = batch()
    scores[3, 2] = torch.nan
    assert KINDS[kind](scores, labels, base).isnan()
    assert macro_auc(scores, labels).isnan()
    assert macro_auc(scores, labels, per_label=True).isnan().tolist() == [False, False, True, False]


def test_degenerate_arguments():
    scores, labels = batch()
    for function in KINDS.values():
        with pytest.raises(ValueError, match=r"\(N, K\)"):
            function(scores, labels[:, :2])
        with pytest.raises(ValueError, match=r"\(N, K\)"):
            function(scores[:, 0], labels[:, 0])
        with pytest.raises(ValueError, match="base"):
            function(scores, labels, "cubic")
    with pytest.raises(ValueError, match="kind"):
        MacroAUCLoss("u3")
    with pytest.raises(ValueError, match="base"):
        MacroAUCLoss(base="cubic")
    with pytest.raises(ValueError, match="block_size"):
        pairwise_auc_loss(scores, labels, block_size=0)
    with pytest.raises(ValueError, match="do not fit"):
        macro_auc(scores, labels[:, :2])
    with pytest.raises(ValueError, match=r"\(\.\.\., N, K\)"):
        macro_auc(scores[:, 0], labels[:, 0])


# --- dtypes and devices -------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", BASE_NAMES)
def test_dtype_device(dtype, kind, base):
    scores, labels = batch()
    exact = KINDS[kind](scores, labels, base)
    loss = KINDS[kind](scores.to(dtype), labels.bool(), base)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(exact.item(), rel=8 * torch.finfo(dtype).eps)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_dtype_device_cuda():
    scores, labels = batch()
    for base in BASE_NAMES:
        for loss in KINDS.values():
            torch.testing.assert_close(loss(scores.cuda(), labels.cuda(), base).cpu(), loss(scores, labels, base))
    torch.testing.assert_close(macro_auc(scores.cuda(), labels.cuda()).cpu(), macro_auc(scores, labels))
