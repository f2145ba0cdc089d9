"""The contrastive losses against plain formulas and peers: forward + backward, float32, d = 128, one thread.

N counts embedding vectors, two for a sample where a loss takes two views.  "products" are the three matrix products
that any exact method needs, streamed in blocks: a bound.  All normalise their vectors (uniformity: nobody).  The rows
are the data of the book's page on large batches.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from _fresh import OUT_OF_MEMORY, Step, main, measure

D = 128
SIZES = {256: 51, 1024: 21, 4096: 7, 16384: 3, 65536: 0}
"""Embeddings -> repetitions."""
LARGEST = {"plain": 16384, "compiled": 4096, "metric-learning": 1024, "lightly": 4096, "info-nce-pytorch": 4096}
"""Above this size a candidate is not tried (it needs more than 10 GB, or minutes)."""
CANDIDATES = {
    "NT-Xent": ("ours", "plain", "compiled", "products", "metric-learning", "lightly"),
    "InfoNCE": ("ours", "plain", "info-nce-pytorch"),
    "SupCon": ("ours", "plain", "metric-learning"),
    "CLIP": ("ours", "plain"),
    "SigLIP": ("ours", "plain"),
    "DCL": ("ours", "plain", "lightly"),
    "uniformity": ("ours", "plain"),
}


def rows() -> Iterator[dict[str, Any]]:
    """One row a loss and size: seconds and peak memory of everyone who fits."""
    for loss, candidates in CANDIDATES.items():
        for size, repeats in SIZES.items():
            if loss != "NT-Xent" and size > 4096:  # the picture is the same
                continue
            wanted = [who for who in candidates if size <= LARGEST.get(who, size) and installed(who)]
            memory = {who: measure(__file__, "memory", f"{loss}:{who}", size) for who in wanted if who != "products"}
            fits = [f"{loss}:{who}" for who in wanted if memory.get(who) != OUT_OF_MEMORY]
            seconds = measure(__file__, "time", ",".join(fits), size, repeats)
            for who in wanted:
                time = seconds.get(f"{loss}:{who}")
                row = {"loss": loss, "N": size, "who": who, "seconds": time, "memory_mb": memory.get(who)}
                if time is not None:
                    row["times_ours"] = time / seconds[f"{loss}:ours"]
                yield row


def installed(who: str) -> bool:
    """Whether a peer is there."""
    from importlib.util import find_spec

    module = {"metric-learning": "pytorch_metric_learning", "lightly": "lightly", "info-nce-pytorch": "info_nce"}
    return who not in module or find_spec(module[who]) is not None


def step_of(name: str, size: int) -> Step:
    """A forward and backward pass of ``loss:who`` on N random vectors, in classes of eight for SupCon."""
    import torch

    loss, who = name.split(":")
    z = torch.nn.functional.normalize(torch.randn(size, D, generator=torch.Generator().manual_seed(0)), dim=1)
    z.requires_grad_()
    if who == "products":
        return lambda: products(z.detach())
    makers = {"ours": ours, "plain": plain, "compiled": plain, "info-nce-pytorch": info_nce_pytorch}
    makers |= {"metric-learning": metric_learning, "lightly": lightly}
    function = makers[who](loss)
    if who == "compiled":
        function = torch.compile(function)

    def step() -> None:
        z.grad = None
        function(z).backward()

    return step


def products(z: Any) -> None:
    """What streaming has to multiply: similarities, and their weights with the vectors on both sides."""
    import torch

    from lib.losses._streaming import block_rows

    by_z, step = torch.zeros_like(z), block_rows(len(z))
    for start in range(0, len(z), step):
        s = z[start : start + step] @ z.T
        by_z[start : start + step] += s @ z
        by_z += s.T @ z[start : start + step]


def ours(loss: str) -> Callable[[Any], Any]:
    """Scalar of the vectors, by this library."""
    import torch

    from lib import losses

    if loss == "SupCon":
        return lambda z: losses.supcon_loss(z[:, None], torch.arange(len(z)) // 8, 0.1, 0.1)
    pair: dict[str, Callable[[Any, Any], Any]] = {
        "NT-Xent": lambda a, b: losses.nt_xent(a, b, 0.1),
        "InfoNCE": lambda a, b: losses.info_nce(a, b, None, 0.1),
        "CLIP": lambda a, b: losses.clip_loss(a, b, math.log(10)),
        "SigLIP": lambda a, b: losses.siglip_loss(a, b, math.log(10), -10.0),
        "DCL": lambda a, b: losses.dcl_loss(a, b, 0.1),
    }
    return losses.uniform_loss if loss == "uniformity" else lambda z: pair[loss](*z.chunk(2))


def plain(loss: str) -> Callable[[Any], Any]:
    """The same by its formula, with a matrix of all pairs."""
    import torch
    from torch.nn.functional import cross_entropy, logsigmoid, normalize

    def nt_xent(z: Any) -> Any:
        z = normalize(z)
        s = (z @ z.T / 0.1).masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
        return cross_entropy(s, torch.arange(len(z)).roll(len(z) // 2))

    def supcon(z: Any) -> Any:
        z = normalize(z)
        own, y = torch.eye(len(z), dtype=torch.bool), torch.arange(len(z)) // 8
        s = (z @ z.T / 0.1).masked_fill(own, -torch.inf)
        positive = (y[:, None] == y) & ~own
        log_p = s - s.logsumexp(1, keepdim=True)
        return -(log_p.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()

    def dcl(z: Any) -> Any:
        z = normalize(z)
        s, n = z @ z.T / 0.1, len(z) // 2
        sample = torch.arange(n).repeat(2)
        matched = s[torch.arange(len(z)), torch.arange(len(z)).roll(n)]
        return (s.masked_fill(sample[:, None] == sample, -torch.inf).logsumexp(1) - matched).mean()

    def info_nce(z: Any) -> Any:
        a, b = map(normalize, z.chunk(2))
        return cross_entropy(a @ b.T / 0.1, torch.arange(len(a)))

    def clip(z: Any) -> Any:
        a, b = map(normalize, z.chunk(2))
        s = 10 * a @ b.T
        return (cross_entropy(s, torch.arange(len(a))) + cross_entropy(s.T, torch.arange(len(a)))) / 2

    def siglip(z: Any) -> Any:
        a, b = map(normalize, z.chunk(2))
        return -logsigmoid((10 * a @ b.T - 10) * (2 * torch.eye(len(a)) - 1)).sum() / len(a)

    def uniformity(z: Any) -> Any:
        return torch.pdist(z).square().mul(-2).exp().mean().log()

    formulas = {"NT-Xent": nt_xent, "SupCon": supcon, "DCL": dcl, "InfoNCE": info_nce, "CLIP": clip, "SigLIP": siglip}
    return formulas.get(loss, uniformity)


def metric_learning(loss: str) -> Callable[[Any], Any]:
    """The same by pytorch-metric-learning."""
    import torch
    from pytorch_metric_learning import losses

    if loss == "SupCon":
        return lambda z: losses.SupConLoss(0.1)(z, torch.arange(len(z)) // 8)
    return lambda z: losses.NTXentLoss(0.1)(z, torch.arange(len(z) // 2).repeat(2))


def lightly(loss: str) -> Callable[[Any], Any]:
    """The same by lightly."""
    from lib._torchvision import torchvision

    torchvision()  # lightly imports it
    from lightly import loss as losses

    function = losses.DCLLoss(0.1) if loss == "DCL" else losses.NTXentLoss(0.1)
    return lambda z: function(*z.chunk(2))


def info_nce_pytorch(loss: str) -> Callable[[Any], Any]:
    """The same by info-nce-pytorch."""
    from info_nce import InfoNCE

    return lambda z: InfoNCE(0.1)(*z.chunk(2))


if __name__ == "__main__":
    main(step_of)
