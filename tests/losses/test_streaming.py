"""The shared core of the contrastive losses: streamed against one anchor at a time, at random shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lib.losses import _streaming
from lib.losses._pair_decisions import softplus_sum
from lib.losses._streaming import streamed_columns, streamed_rows, unit, weighted_log_sum_exp

SETS = [("all",), ("others",), ("matching",), ("same",), ("unpaired",), ("others", "same"), ("all", "matching")]
DOUBLE = torch.float64


def candidates(which, labels, offset):
    """Which pairs take part, (N, M)."""
    same = labels[0][:, None] == labels[1]
    own = torch.zeros_like(same)
    own.diagonal(offset).fill_(True)
    paired, half = own.clone(), same.shape[1] // 2
    for shift in (half, -half):
        paired.diagonal(offset + shift).fill_(True)
    return {"all": same | ~same, "others": ~own, "unpaired": ~paired, "matching": same, "same": same & ~own}[which]


def by_definition(x, y, scale, terms, labels, columns, offset):
    s = scale * x @ y.T
    total = s.sum() * 0
    for which, weights in terms.items():
        for row, keep, w in zip(s, candidates(which, labels, offset), weights, strict=True):
            if keep.any():
                total = total + w * row[keep].exp().sum().log()
    return total if columns is None else total + (columns * s.exp().sum(0).log()).sum()


def value_and_gradients(function, *inputs):
    inputs = [z.clone().requires_grad_() for z in inputs]
    value = function(*inputs)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def draw(seed, *shapes):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=random, dtype=DOUBLE) for shape in shapes]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 24),
    more=st.integers(0, 12),
    d=st.integers(1, 6),
    which=st.sampled_from(SETS),
    block=st.integers(1, 30),
    both=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_value_by_hand_one_anchor_at_a_time(n, more, d, which, block, both, seed):
    x, y, weights, columns = draw(seed, (n, d), (n + more, d), (len(which), n), (n + more,))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=random), torch.randint(4, (n + more,), generator=random)
    offset = int(torch.randint(more + 1, (), generator=random))
    # An anchor without candidates has no log-sum-exp, and weight 0.
    terms = {
        name: w * candidates(name, labels, offset).any(1).to(DOUBLE) for name, w in zip(which, weights, strict=True)
    }
    columns = columns if both else None
    scale = torch.tensor(3.0, dtype=DOUBLE)
    wanted = value_and_gradients(lambda *a: by_definition(*a, terms, labels, columns, offset), x, y, scale)
    for size in (None, block):

        def streamed(a, b, t, size=size):
            options = {"labels": labels, "columns": columns, "offset": offset, "block": size}
            return weighted_log_sum_exp(a, b, terms, scale=t, **options)

        for got, want in zip(value_and_gradients(streamed, x, y, scale), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), m=st.integers(1, 20), block=st.integers(1, 25), seed=st.integers(0, 10_000))
def test_value_by_hand_pair_decisions(n, m, block, seed):
    x, y = draw(seed, (n, 3), (m, 3))
    scale, bias = torch.tensor(4.0, dtype=DOUBLE), torch.tensor(-2.0, dtype=DOUBLE)
    wanted = value_and_gradients(lambda a, b, t, c: (1 + (t * a @ b.T + c).exp()).log().sum(), x, y, scale, bias)
    for size in (None, block):
        found = value_and_gradients(lambda *a, size=size: softplus_sum(*a, block=size), x, y, scale, bias)
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_limit_of_rows_and_columns():
    """With one column the log-sum-exp of a row is its entry; columns are the rows of the transpose."""
    x, y = draw(0, (37, 4), (11, 4))
    torch.testing.assert_close(streamed_rows(x, y[:1], 2.0, block=5), 2 * x @ y[0])
    torch.testing.assert_close(streamed_columns(x, y, 2.0, block=5), streamed_rows(y, x, 2.0, block=3))


@pytest.mark.parametrize("block", [None, 7])
def test_degenerate_huge_logits(block):
    """At a scale of 10,000 the log-sum-exp is the largest similarity, and its gradient that candidate."""
    x, y = draw(1, (20, 3), (30, 3))
    weights = {"all": torch.ones(20, dtype=DOUBLE)}
    for dtype in (torch.float32, DOUBLE):
        a, b = x.to(dtype).requires_grad_(), y.to(dtype)
        value = weighted_log_sum_exp(a, b, {"all": weights["all"].to(dtype)}, scale=1e4, block=block)
        best = (x @ y.T).max(1)
        torch.testing.assert_close(value.double(), 1e4 * best.values.sum(), rtol=1e-5, atol=0)
        (gradient,) = torch.autograd.grad(value, a)
        torch.testing.assert_close(gradient.double(), 1e4 * y[best.indices], rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("block", [None, 7])
def test_degenerate_nan_zero_and_single(block):
    x, _ = draw(2, (20, 3), (1, 1))
    ones = {"others": torch.ones(20, dtype=DOUBLE)}
    broken = x.clone()
    broken[3, 1] = torch.nan
    assert weighted_log_sum_exp(broken, broken, ones, block=block).isnan()
    zero = torch.zeros(20, 3, dtype=DOUBLE, requires_grad=True)
    value = weighted_log_sum_exp(zero, zero, ones, block=block)
    assert value.item() == pytest.approx(20 * torch.tensor(19.0).log().item())
    assert torch.autograd.grad(value, zero)[0].abs().max() == 0
    with pytest.raises(ValueError, match="labels"):
        weighted_log_sum_exp(x, x, {"same": ones["others"]}, block=block)
    with pytest.raises(ValueError, match="block_size"):
        weighted_log_sum_exp(x, x, ones, block=0)


def test_gradcheck_and_second_derivative():
    x, w = draw(3, (9, 3), (9,))
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: weighted_log_sum_exp(z, z, {"others": w}, block=4), x)
    assert torch.autograd.gradgradcheck(lambda z: weighted_log_sum_exp(z, z, {"others": w}), x)
    for streamed in (weighted_log_sum_exp(x, x, {"others": w}, block=4), softplus_sum(x, x, 2.0, 0.0, block=4)):
        (gradient,) = torch.autograd.grad(streamed, x, create_graph=True)
        with pytest.raises(RuntimeError, match="once only"):
            torch.autograd.grad(gradient.sum(), x)


def test_gradcheck_of_unit_vectors(monkeypatch):
    """The frugal form of many rows is the plain one: value, both derivatives, and what happens to zero vectors."""
    (x,) = draw(7, (6, 3))
    x[2] = 0
    plain = value_and_gradients(lambda z: unit(z).pow(3).sum(), x[3:])
    monkeypatch.setattr(_streaming, "DENSE", 0)
    for got, want in zip(value_and_gradients(lambda z: unit(z).pow(3).sum(), x[3:]), plain, strict=True):
        torch.testing.assert_close(got, want)
    away = x[3:].clone().requires_grad_()
    assert torch.autograd.gradcheck(unit, away)
    assert torch.autograd.gradgradcheck(unit, away)
    torch.testing.assert_close(unit(x)[2], torch.zeros(3, dtype=DOUBLE))
    torch.testing.assert_close(torch.func.vmap(unit)(x[None].expand(2, 6, 3))[1], unit(x))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_invariance_under_vmap():
    x, w = draw(4, (3, 30, 4), (30,))
    labels = torch.arange(30) % 4

    def gradient(block):
        def loss(z):
            terms = {"others": w, "same": -w}
            return weighted_log_sum_exp(z, z, terms, labels=(labels, labels), block=block)

        return torch.func.vmap(torch.func.grad(loss))(x)

    torch.testing.assert_close(gradient(7), gradient(None), rtol=1e-10, atol=1e-12)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.untyped_storage().nbytes() // each.element_size())
        return out


def test_dtype_device_float32_and_memory():
    """Float32 agrees with float64; the largest tensor is a block of rows, never all pairs (36 million)."""
    x, w = (z.float() for z in draw(5, (6000, 8), (6000,)))
    with Largest() as seen:
        found = value_and_gradients(lambda z: weighted_log_sum_exp(z, z, {"others": w}), x)
    assert seen.numbers <= 128 * 6000
    exact = value_and_gradients(lambda z: weighted_log_sum_exp(z, z, {"others": w.double()}), x.double())
    for got, want in zip(found, exact, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5 * want.abs().max().item())
