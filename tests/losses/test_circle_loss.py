import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, jacrev, vmap
from torch.nn.functional import normalize

from lib.losses import CircleClassifier, CircleLoss, UnifiedClassifier, UnifiedLoss
from lib.losses.circle_loss import (
    circle_class_loss,
    circle_loss,
    circle_pair_loss,
    unified_class_loss,
    unified_loss,
    unified_pair_loss,
)

PAIR = {"circle": circle_pair_loss, "unified": unified_pair_loss}


def batch(n=24, d=8, classes=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=dtype)
    return x, torch.randint(classes, (n,), generator=generator)


def written_out(x, labels, m, gamma, alpha_of=None):
    """Equations 1, 5 and 6 with plain sums; `alpha_of` gives the similarities that the weights are taken from."""
    x, frozen = normalize(x, dim=1), normalize(x if alpha_of is None else alpha_of, dim=1)
    s, weight = x @ x.T, frozen @ frozen.T
    losses = []
    for a in range(len(x)):
        positive = [i for i in range(len(x)) if i != a and labels[i] == labels[a]]
        negative = [j for j in range(len(x)) if labels[j] != labels[a]]
        if positive and negative:
            over_n = sum(torch.exp(gamma * (weight[a, j] + m).clamp(min=0) * (s[a, j] - m)) for j in negative)
            over_p = sum(torch.exp(-gamma * (1 + m - weight[a, i]) * (s[a, i] - 1 + m)) for i in positive)
            losses.append(torch.log(1 + over_n * over_p))
    return torch.stack(losses).mean()


def gradient(loss, x, *args, **kw):
    x = x.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(x, *args, **kw), x)
    return result


def points(s_n, s_p):
    """One negative and one positive per anchor, as similarities and mask."""
    s = torch.stack([torch.as_tensor(s_n), torch.as_tensor(s_p)], -1).double()
    return s, torch.tensor([False, True]).expand(s.shape)


# --- by hand -----------------------------------------------------------------


def test_value_by_hand():
    """alpha_p = 0.45, alpha_n = 0.65: exponent 0.65 * 0.15 - 0.45 * 0.05 = 0.075."""
    s, positive = points([0.4], [0.8])
    assert circle_loss(s, positive, m=0.25, gamma=1.0).item() == pytest.approx(math.log1p(math.exp(0.075)), abs=1e-12)
    assert circle_loss(s, positive, m=0.25, gamma=1.0).item() == pytest.approx(0.731350, abs=1e-6)


def test_value_by_hand_unified():
    s, positive = points([0.4], [0.8])
    assert unified_loss(s, positive, m=0.1, gamma=10.0).item() == pytest.approx(math.log1p(math.exp(10 * -0.3)))


def test_value_by_hand_embeddings():
    """Two orthogonal classes of two equal samples: s_p = 1, s_n = 0, alpha = m for both, exponents -gamma m^2."""
    x = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([7, 7, -1, -1])
    expected = math.log1p(2 * math.exp(-2 * 80 * 0.16))
    assert circle_pair_loss(x, labels, 0.4, 80.0).item() == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(st.floats(0.01, 0.65), st.floats(1, 256))
def test_value_by_hand_circle_boundary(m, gamma):
    """On (s_n, 1 - s_p) = sqrt(2) m (sin t, cos t) both exponents cancel, so the loss is log 2."""
    t = torch.linspace(-math.pi / 8, 5 * math.pi / 8, 50, dtype=torch.float64)  # s_n and 1 - s_p above -m there
    s, positive = points(m * math.sqrt(2) * t.sin(), 1 - m * math.sqrt(2) * t.cos())
    torch.testing.assert_close(
        circle_loss(s, positive, m=m, gamma=gamma), torch.full_like(t, math.log(2)), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("size", [24, 300])
def test_value_by_hand_written_out(size):
    x, labels = batch(size, classes=size // 4)
    torch.testing.assert_close(circle_pair_loss(x, labels, 0.4, 12.0), written_out(x, labels, 0.4, 12.0))


# --- parity with other implementations ---------------------------------------


@pytest.mark.parametrize("size", [16, 64, 257, 400])
@pytest.mark.parametrize(("m", "gamma"), [(0.4, 80.0), (0.25, 256.0)])
def test_parity_pytorch_metric_learning(size, m, gamma):
    peer = pytest.importorskip("pytorch_metric_learning.losses").CircleLoss(m=m, gamma=gamma)
    x, labels = batch(size, 32, 8, dtype=torch.float32)
    ours = CircleLoss(m, gamma)
    torch.testing.assert_close(ours(x, labels), peer(x, labels), rtol=1e-5, atol=0)
    by_us, by_peer = gradient(ours, x, labels), gradient(peer, x, labels)
    assert (by_us - by_peer).norm() <= 1e-5 * by_peer.norm()


def test_parity_cosface():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    x, labels = batch(40, 16, 5, dtype=torch.float32)
    peer = losses.CosFaceLoss(5, 16, margin=0.35, scale=64.0)
    ours = UnifiedClassifier(16, 5, m=0.35, gamma=64.0)
    ours.weight.data = peer.W.data.T.clone()
    torch.testing.assert_close(ours(x, labels), peer(x, labels), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(ours, x, labels), gradient(peer, x, labels), rtol=1e-4, atol=1e-6)


def test_parity_class_form_is_pair_form_with_class_vectors():
    """Equation 6 does not care where the similarities come from."""
    x, labels = batch(20, 6, 5)
    weight = batch(5, 6, seed=1)[0]
    s = normalize(x, dim=1) @ normalize(weight, dim=1).T
    expected = circle_loss(s, labels[:, None] == torch.arange(5), m=0.3, gamma=30.0).mean()
    torch.testing.assert_close(circle_class_loss(x, labels, weight, 0.3, 30.0), expected)
    one_positive = written_out(torch.cat([x[:1], weight]), torch.cat([labels[:1], torch.arange(5)]), 0.3, 30.0)
    first = written_out(torch.cat([weight, x[:1]]), torch.cat([torch.arange(5), labels[:1]]), 0.3, 30.0)
    torch.testing.assert_close(first, one_positive)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["circle", "unified"]),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(1, 50),
    st.floats(0, 0.9),
    st.floats(0.1, 300),
    st.integers(0, 10**6),
)
def test_parity_streamed(kind, n, d, classes, block, m, gamma, seed):
    """Streamed and plain evaluation agree in value and gradient for every shape and block size."""
    x, labels = batch(n, d, classes, seed=seed)
    plain, streamed = (gradient(PAIR[kind], x, labels, m, gamma, b) for b in (None, block))
    torch.testing.assert_close(streamed, plain, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(PAIR[kind](x, labels, m, gamma, block), PAIR[kind](x, labels, m, gamma))


def test_parity_streamed_large():
    """Above the dense limit the default is streamed, in several blocks; float32 against plain float64."""
    x, labels = batch(1100, 32, 60, dtype=torch.float32)
    s = normalize(x.double(), dim=1) @ normalize(x.double(), dim=1).T
    same = labels[:, None] == labels
    expected = circle_loss(s, same & ~torch.eye(1100, dtype=torch.bool), ~same, 0.4, 80.0).mean()
    assert circle_pair_loss(x, labels, 0.4, 80.0).item() == pytest.approx(expected.item(), rel=1e-5)


# --- limits -------------------------------------------------------------------


def test_limit_alpha_one_gives_unified():
    """Replace both weights by 1 in Eq. 6 and let m_uni = Delta_p - Delta_n: Eq. 1."""
    x, labels = batch()
    s = normalize(x, dim=1) @ normalize(x, dim=1).T
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(x), dtype=torch.bool)
    m, gamma = 0.3, 20.0
    low = torch.finfo(s.dtype).min
    over_n = (gamma * (s - m)).masked_fill(same, low).logsumexp(1)
    over_p = (-gamma * (s - (1 - m))).masked_fill(~positive, low).logsumexp(1)
    torch.testing.assert_close(
        unified_loss(s, positive, ~same, m=1 - 2 * m, gamma=gamma), torch.nn.functional.softplus(over_n + over_p)
    )


def test_limit_hardest_triplet():
    """L_uni / gamma tends to the hinge on the hardest pair (Eq. 3)."""
    x, labels = batch()
    s = normalize(x, dim=1) @ normalize(x, dim=1).T
    same = labels[:, None] == labels
    positive = same & ~torch.eye(len(x), dtype=torch.bool)
    hardest = (s.masked_fill(same, -9).amax(1) - s.masked_fill(~positive, 9).amin(1) + 0.2).relu()
    for gamma in (1e3, 1e5):
        loss = unified_loss(s, positive, ~same, m=0.2, gamma=gamma) / gamma
        assert (loss - hardest).abs().max() < 10 / gamma


def test_limit_flexible_gradient():
    """|dL/ds_p| / |dL/ds_n|: alpha_p / alpha_n for Circle, 1 for L_uni; points of equal s_n - s_p + const."""
    s_n, s_p, m = torch.tensor([0.2, 0.4, 0.65]), torch.tensor([0.5, 0.7, 0.95]), 0.4
    s, positive = points(s_n, s_p)
    by_circle = gradient(lambda s: circle_loss(s, positive, m=m, gamma=80.0).sum(), s)
    torch.testing.assert_close(-by_circle[:, 1] / by_circle[:, 0], ((1 + m - s_p) / (s_n + m)).double())
    by_unified = gradient(lambda s: unified_loss(s, positive, m=m, gamma=80.0).sum(), s)
    torch.testing.assert_close(-by_unified[:, 1], by_unified[:, 0])


# --- invariance ---------------------------------------------------------------


@pytest.mark.parametrize("kind", PAIR)
@pytest.mark.parametrize("block", [None, 7])
def test_invariance(kind, block):
    """Order of the samples, names of the labels, length of the vectors and rotations do not matter."""
    x, labels = batch()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    rotation = torch.linalg.qr(batch(8, 8, seed=5)[0]).Q
    length = torch.linspace(0.1, 10, len(x), dtype=x.dtype)[:, None]
    expected = PAIR[kind](x, labels, 0.4, 80.0, block)
    for other, names in (
        (x[order], labels[order]),
        (x, 100 - 3 * labels),
        (x * length, labels),
        (x @ rotation, labels),
    ):
        torch.testing.assert_close(PAIR[kind](other, names, 0.4, 80.0, block), expected)


def test_invariance_determinism():
    x, labels = batch(600, 16, 10, dtype=torch.float32)
    first, second = (gradient(circle_pair_loss, x, labels, 0.4, 80.0) for _ in range(2))
    assert torch.equal(first, second)


def test_invariance_vmap_over_hyperparameters():
    """One stack of runs with their own m and gamma equals the runs one by one, plain and streamed."""
    x, labels = torch.stack([batch(seed=i)[0] for i in range(3)]), torch.stack([batch(seed=i)[1] for i in range(3)])
    m, gamma = torch.tensor([0.1, 0.25, 0.4]).double(), torch.tensor([20.0, 80.0, 256.0]).double()
    for kind, formula in PAIR.items():
        for block in (None, 5):

            def loss(x, labels, m, gamma, formula=formula, block=block):
                return formula(x, labels, m, gamma, block)

            stacked = vmap(grad(loss))(x, labels, m, gamma)
            for i in range(3):
                alone = gradient(formula, x[i], labels[i], m[i].item(), gamma[i].item(), block)
                torch.testing.assert_close(stacked[i], alone, msg=f"{kind}, block {block}")


# --- gradients ----------------------------------------------------------------


@pytest.mark.parametrize("block", [None, 5])
def test_gradcheck_unified(block):
    x, labels = batch(10, 4, 3)
    assert torch.autograd.gradcheck(lambda x: unified_pair_loss(x, labels, 0.3, 5.0, block), x.requires_grad_())


@pytest.mark.parametrize("block", [None, 5])
def test_gradcheck_circle_with_fixed_weights(block):
    """Central differences of Eq. 6 with alpha frozen at the point; with moving alpha they differ."""
    x, labels = batch(10, 4, 3)
    by_us = gradient(circle_pair_loss, x, labels, 0.3, 5.0, block)
    frozen, moving = torch.zeros_like(x), torch.zeros_like(x)
    h = 1e-6
    for index in range(x.numel()):
        step = torch.zeros_like(x)
        step.view(-1)[index] = h
        for result, alpha_of in ((frozen, x), (moving, None)):
            up, down = (written_out(x + sign * step, labels, 0.3, 5.0, alpha_of) for sign in (1, -1))
            result.view(-1)[index] = (up - down) / (2 * h)
    torch.testing.assert_close(by_us, frozen, rtol=1e-6, atol=1e-8)
    assert (by_us - moving).norm() > 0.1 * by_us.norm()


def test_gradcheck_one_pair():
    """dL/ds_n = gamma alpha_n sigmoid(z), dL/ds_p = -gamma alpha_p sigmoid(z)."""
    s, positive = points([0.4], [0.8])
    by_s = gradient(lambda s: circle_loss(s, positive, m=0.25, gamma=8.0).sum(), s)
    sigmoid = 1 / (1 + math.exp(-8 * 0.075))
    torch.testing.assert_close(by_s, torch.tensor([[8 * 0.65 * sigmoid, -8 * 0.45 * sigmoid]]).double())


def test_gradcheck_second_derivative():
    """Right in the plain formula, refused in the streamed one."""
    x, labels = batch(8, 3, 3)
    assert torch.autograd.gradgradcheck(lambda x: unified_pair_loss(x, labels, 0.3, 5.0), x.requires_grad_())
    (first,) = torch.autograd.grad(unified_pair_loss(x, labels, 0.3, 5.0, 4), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        torch.autograd.grad(first.sum(), x)
    with pytest.raises(RuntimeError, match="once only"):
        jacrev(jacrev(lambda x: unified_pair_loss(x, labels, 0.3, 5.0, 4)))(x.detach())


# --- degenerate input ----------------------------------------------------------


@pytest.mark.parametrize("kind", PAIR)
@pytest.mark.parametrize("block", [None, 3])
@pytest.mark.parametrize(
    "labels", [[], [0], [0, 0, 0], [0, 1, 2]], ids=["empty", "one sample", "no negative", "no positive"]
)
def test_degenerate_no_valid_anchor(kind, block, labels):
    x = batch(len(labels))[0].requires_grad_()
    loss = PAIR[kind](x, torch.tensor(labels, dtype=torch.long), block_size=block)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("block", [None, 3])
def test_degenerate_anchors_without_a_side_do_not_count(block):
    """A sample with a label of its own is a negative of others, but no anchor."""
    x, _ = batch(5)
    labels = torch.tensor([0, 0, 1, 1, 2])
    torch.testing.assert_close(circle_pair_loss(x, labels, 0.4, 10.0, block), written_out(x, labels, 0.4, 10.0))


@pytest.mark.parametrize("block", [None, 16])
@pytest.mark.parametrize("gamma", [256.0, 1e4])
def test_degenerate_huge_gamma_and_duplicates(block, gamma):
    x, labels = batch(64, 8, 4, dtype=torch.float32)
    x[1], x[2] = x[0], -x[0]  # similarities of exactly 1 and -1
    value, slope = circle_pair_loss(x, labels, 0.25, gamma, block), gradient(circle_pair_loss, x, labels, 0.25, gamma)
    exact = circle_pair_loss(x.double(), labels, 0.25, gamma)
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)
    assert slope.isfinite().all()


@pytest.mark.parametrize("block", [None, 3])
def test_degenerate_zero_vector_is_similar_to_nothing(block):
    x, labels = batch(8, classes=2)
    x[0] = 0
    spare = torch.cat([x, torch.zeros(8, 1, dtype=x.dtype)], 1)
    spare[0, -1] = 1  # orthogonal to all others
    torch.testing.assert_close(circle_pair_loss(x, labels, 0.4, 9.0, block), circle_pair_loss(spare, labels, 0.4, 9.0))
    assert gradient(circle_pair_loss, x, labels, 0.4, 9.0, block).isfinite().all()


@pytest.mark.parametrize("block", [None, 3])
def test_degenerate_nan_comes_out(block):
    x, labels = batch(8, classes=2)
    x[3, 1] = torch.nan
    assert circle_pair_loss(x, labels, block_size=block).isnan()


def test_degenerate_errors():
    x, labels = batch()
    with pytest.raises(ValueError, match=r"\(24, 8\) and \(23,\)"):
        circle_pair_loss(x, labels[1:])
    with pytest.raises(ValueError, match=r"\(24, 1\)"):
        circle_pair_loss(x, labels[:, None])
    with pytest.raises(ValueError, match="block_size"):
        circle_pair_loss(x, labels, block_size=0)
    with pytest.raises(RuntimeError, match="out of bounds"):
        CircleClassifier(8, 3).double()(x, labels)  # four classes
    assert CircleClassifier(8, 3)(x[:0].float(), labels[:0]).item() == 0


# --- dtypes, modules ------------------------------------------------------------


@pytest.mark.parametrize("kind", PAIR)
@pytest.mark.parametrize("block", [None, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_device(kind, block, dtype):
    """Half precision is rounded once, at the input; sums are float32, the gradient has the input's type."""
    x, labels = batch(dtype=torch.float32)
    x = x.to(dtype).requires_grad_()
    loss = PAIR[kind](x, labels, 0.25, 256.0, block)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert x.grad.dtype == dtype
    assert loss.item() == pytest.approx(PAIR[kind](x.detach().double(), labels, 0.25, 256.0).item(), rel=1e-5)


def test_dtype_device_autocast():
    """The matrix product of a loss with gamma = 256 must not run in bfloat16."""
    x, labels = batch(dtype=torch.float32)
    layer = torch.nn.Linear(8, 8, bias=False)
    with torch.autocast("cpu", torch.bfloat16):
        z = layer(x)
        losses = [CircleLoss()(z, labels), CircleLoss(block_size=8)(z, labels), CircleClassifier(8, 4)(z, labels)]
    assert z.dtype == torch.bfloat16
    assert all(loss.dtype == torch.float32 for loss in losses)
    assert losses[0].item() == pytest.approx(CircleLoss()(z.detach().double(), labels).item(), rel=1e-5)


def test_dtype_device_modules():
    """Defaults, state and printed form of the modules; a few steps lower the loss."""
    x, labels = batch(40, 8, 4, dtype=torch.float32)
    assert (CircleLoss().m, CircleLoss().gamma) == (0.25, 256.0)
    assert list(CircleLoss().state_dict()) == []
    assert repr(CircleClassifier(8, 4)) == "CircleClassifier(in_dim=8, n_classes=4, m=0.25, gamma=256.0)"
    torch.manual_seed(0)
    for loss in (CircleLoss(0.4, 80.0), UnifiedLoss(0.4, 80.0), CircleClassifier(8, 4), UnifiedClassifier(8, 4)):
        z = x.clone().requires_grad_()
        optimiser = torch.optim.Adam([z, *loss.parameters()], lr=0.1)
        history = []
        for _ in range(30):
            optimiser.zero_grad()
            value = loss(z, labels)
            value.backward()
            optimiser.step()
            history.append(value.item())
        assert history[-1] < 0.1 * history[0]
    torch.testing.assert_close(loss(x, labels), unified_class_loss(x, labels, loss.weight, loss.m, loss.gamma))
    assert loss.similarity(x).shape == (40, 4)
    assert loss.similarity(x).abs().max() <= 1 + 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("size", [64, 1000])
def test_dtype_device_cuda(size):
    x, labels = batch(size, 16, 8, dtype=torch.float32)
    on_cpu = gradient(circle_pair_loss, x, labels, 0.4, 80.0)
    on_gpu = gradient(circle_pair_loss, x.cuda(), labels.cuda(), 0.4, 80.0).cpu()
    assert (on_gpu - on_cpu).norm() <= 1e-4 * on_cpu.norm()
