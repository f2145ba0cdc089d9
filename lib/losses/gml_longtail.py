r"""GML: mutual information between features and labels, for long tails (Suh and Seo 2023, arXiv:2305.01160).

A query q(x) and keys k_j with labels l_j are unit vectors, pi_y is the share of class y in the training data.  The
density of class y at q is estimated by a kernel density over the keys of the class, whatever their number::

    s_y(q) = log ( 1/|{j: l_j = y}| sum_{j: l_j = y} exp(q . k_j / T_c) )        (a log-MEAN-exp)
    L_con  = -log softmax_y( s(q) + log pi )_label

so that softmax(s + log pi) is Bayes' rule with that density, and H(Y) - L_con a lower bound of I(q; Y).  A cosine
classifier gets the same treatment, which is logit adjustment::

    L_sup = cross-entropy( cos(f, w) / T_s + log pi, label ),        L = gamma L_sup + beta L_con + alpha L_KD

T_c is trained by a copy of L_con of its own, in which q . k carries no gradient and pairs of one image are left out;
the features see T_c as a constant (official code).  At test time argmax of the cosines, without log pi.

A class without any key is left out of the softmax, and a query of such a class does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.losses.class_counts import log_prior, logit_adjusted_loss

__all__ = ["GMLLoss", "class_scores", "gml_contrastive_loss", "gml_loss", "mutual_information_bound"]

Number = float | Tensor
ABSENT = -1e4
"""Score of a class without keys: nothing after the softmax, and finite, so that its gradient is 0 and not NaN."""


def class_scores(
    similarities: Tensor, key_classes: Tensor, allowed: Tensor | None = None, divide: Number = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-mean-exp of similarities over the keys of each class, ``log( sum_j exp / number^divide )``.

    Args:
        similarities: q . k / T_c, shape (B, K).
        key_classes: one-hot labels of the keys, shape (K, C), in the dtype of the similarities.
        allowed: 1 where a pair counts, else 0, shape (B, K) or (K,); None: all.
        divide: 1 is the mean; 0 the sum, by which classes with many keys gain.

    Returns:
        Scores s (B, C), and the number of keys that count for each (B, C); the score is very small where it is 0.
    """
    weight = torch.ones_like(similarities) if allowed is None else allowed.expand_as(similarities)
    # One matrix product instead of a sum for each class; the largest of *all* similarities is taken out, and with
    # cosines over a temperature of at least 0.03 nothing underflows.
    top = similarities.amax(-1, keepdim=True).detach() if similarities.shape[-1] else similarities.sum(-1, keepdim=True)
    total = ((similarities - top).exp() * weight) @ key_classes
    number = weight @ key_classes
    scores = total.clamp(min=torch.finfo(total.dtype).tiny).log() - divide * number.clamp(min=1).log() + top
    return torch.where(number > 0, scores, ABSENT), number


def gml_contrastive_loss(
    query: Tensor,
    labels: Tensor,
    keys: Tensor,
    key_classes: Tensor,
    class_counts: Tensor,
    temperature: Number = 0.1,
    allowed: Tensor | None = None,
    divide: Number = 1.0,
) -> Tensor:
    """L_con: cross-entropy of the class scores plus log prior.

    Args:
        query: unit vectors, shape (B, d).
        labels: their classes, shape (B,).
        keys: unit vectors, shape (K, d).
        key_classes: one-hot labels of the keys, shape (K, C).
        class_counts: training samples of each class, shape (C,).
        temperature: T_c > 0; a tensor of shape () gets a gradient.
        allowed: see `class_scores`.
        divide: 1 is the paper's; 0 counts the frequency of a class twice, in its keys and in the prior.

    Returns:
        Scalar, mean over queries whose class has a key; 0 if there are none.  NaN for a NaN.
    """
    scores, number = class_scores(query @ keys.T / temperature, key_classes, allowed, divide)
    log_p = (scores + log_prior(class_counts).to(scores)).log_softmax(-1)
    missed = -log_p.gather(-1, labels[:, None]).squeeze(-1)
    counts = (number.gather(-1, labels[:, None]).squeeze(-1) > 0).to(missed)
    return (missed * counts).sum() / counts.sum().clamp(min=1)


def gml_loss(
    cosines: Tensor,
    query: Tensor,
    labels: Tensor,
    keys: Tensor,
    key_classes: Tensor,
    class_counts: Tensor,
    t_s: Number = 1 / 30,
    t_c: Number = 0.1,
    beta: Number = 1.0,
    gamma: Number = 1.0,
    allowed: Tensor | None = None,
    same_image: Tensor | None = None,
    divide: Number = 1.0,
) -> Tensor:
    """gamma L_sup + beta (L_con with T_c held + L_con with similarities held and pairs of one image left out).

    Args:
        cosines: of features and class vectors, shape (M, C), M a multiple of B (several views of each query's image).
        query: see `gml_contrastive_loss`, shape (B, d).
        labels: shape (B,).
        keys: shape (K, d).
        key_classes: shape (K, C).
        class_counts: shape (C,).
        t_s: temperature of the classifier.
        t_c: temperature of the contrast; a tensor is trained by the second contrast only.
        beta: weight of both contrasts; 0 is logit adjustment.
        gamma: weight of the classifier.
        allowed: see `class_scores`.
        same_image: 1 where query and key come from one image, shape (B, K); None: nowhere.
        divide: see `gml_contrastive_loss`.

    Returns:
        Scalar.

    Raises:
        ValueError: counts that do not fit.
    """
    supervised = logit_adjusted_loss(cosines / t_s, labels.repeat(len(cosines) // max(len(labels), 1)), class_counts)
    held = t_c.detach() if isinstance(t_c, Tensor) else t_c
    contrast = gml_contrastive_loss(query, labels, keys, key_classes, class_counts, held, allowed, divide)
    if isinstance(t_c, Tensor):
        apart = torch.ones_like(query @ keys.T) if same_image is None else 1 - same_image
        apart = apart if allowed is None else apart * allowed
        q, k = query.detach(), keys.detach()
        contrast = contrast + gml_contrastive_loss(q, labels, k, key_classes, class_counts, t_c, apart, divide)
    return gamma * supervised + beta * contrast


def mutual_information_bound(
    query: Tensor, labels: Tensor, keys: Tensor, key_classes: Tensor, class_counts: Tensor, temperature: Number
) -> Tensor:
    """Lower bound H(Y) - L_con of I(q; Y) in nats, for queries whose classes have the given counts; at most H(Y).

    Any density model gives a bound; it is tight if the kernel density is that of the classes.  The mean over queries is
    taken as it is, so the labels should occur as `class_counts` says.

    Args:
        query: unit vectors, shape (B, d).
        labels: shape (B,).
        keys: unit vectors of other samples, shape (K, d).
        key_classes: shape (K, C).
        class_counts: of the *queries*, shape (C,); only their shares matter.
        temperature: T_c.

    Returns:
        Scalar.
    """
    log_pi = log_prior(class_counts).to(query)
    entropy = -(log_pi.exp() * log_pi).sum()
    return entropy - gml_contrastive_loss(query, labels, keys, key_classes, class_counts, temperature)


class GMLLoss(nn.Module):
    """GML with its trained temperature; the caller keeps encoder, projector and queue.

    Args:
        class_counts: training samples of each class.
        t_s: temperature of the classifier, fixed.
        t_c: start of the trained temperature of the contrast (`log_t_c` is the parameter).
        beta: weight of the contrast.
        gamma: weight of the classifier.
        alpha: weight of distillation from teacher logits, at temperature 4.

    Raises:
        ValueError: a temperature that is not positive.
    """

    class_counts: Tensor

    def __init__(
        self,
        class_counts: Tensor | Sequence[int],
        t_s: float = 1 / 30,
        t_c: float = 0.1,
        beta: float = 1.0,
        gamma: float = 1.0,
        alpha: float = 0.0,
    ) -> None:
        super().__init__()
        if not t_s > 0 or not t_c > 0:
            raise ValueError(f"temperatures: above 0, got {t_s} and {t_c}")
        self.register_buffer("class_counts", torch.as_tensor(class_counts).to(torch.get_default_dtype()))
        self.log_t_c = nn.Parameter(torch.tensor(t_c).log())
        self.t_s, self.beta, self.gamma, self.alpha = t_s, beta, gamma, alpha

    def forward(
        self,
        cosines: Tensor,
        query: Tensor,
        labels: Tensor,
        keys: Tensor,
        key_labels: Tensor,
        same_image: Tensor | None = None,
        teacher: Tensor | None = None,
    ) -> Tensor:
        """Loss of cosines (B, C), queries (B, d) with labels (B,) and keys (K, d) with labels (K,): a scalar."""
        classes = F.one_hot(key_labels, len(self.class_counts)).to(query)
        loss = gml_loss(
            cosines,
            query,
            labels,
            keys,
            classes,
            self.class_counts,
            self.t_s,
            self.log_t_c.exp(),
            self.beta,
            self.gamma,
            same_image=same_image,
        )
        if self.alpha and teacher is not None:
            student, target = (cosines / self.t_s / 4).log_softmax(-1), (teacher.detach() / 4).softmax(-1)
            loss = loss + self.alpha * 16 * F.kl_div(student, target, reduction="batchmean")
        return loss
