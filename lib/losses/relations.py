"""How the registered losses contain each other: special cases and limits, as data that a test evaluates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["RELATIONS", "Relation"]


@dataclass(frozen=True)
class Relation:
    """``general(z, y, **at) = special(z, y, **special_at) + offset(C)`` for all logits z (N, C) and labels y.

    Attributes:
        general: name of the wider loss in the registry.
        special: name of the loss that it contains.
        when: the condition, in symbols.
        at: hyperparameters of the general loss (those not named have their defaults).
        special_at: hyperparameters of the special one.
        offset: a constant that does not depend on the data.
        limit: the identity holds in a limit; `at` is close to it.
    """

    general: str
    special: str
    when: str
    at: Mapping[str, float | bool] = field(default_factory=dict)
    special_at: Mapping[str, float] = field(default_factory=dict)
    offset: Callable[[int], float] = lambda classes: 0.0
    limit: bool = False


CE = "Cross-entropy"
RELATIONS = (
    Relation("Poly-1", CE, "ε = 0", {"epsilon": 0.0}),
    Relation("Focal", CE, "γ = 0", {"gamma": 0.0}),
    Relation("Dual focal", CE, "γ = 0", {"gamma": 0.0}),
    Relation("LegendreTron", CE, "link = identity"),
    Relation("LDR", CE, "λ = 1, c = 0", {"lam": 1.0, "margin": 0.0, "normalise": False}, offset=lambda c: -math.log(c)),
    Relation("LDR", "Crammer-Singer", "λ → 0", {"lam": 1e-7, "margin": 1.0, "normalise": False}, limit=True),
    Relation("Comp-sum", CE, "τ = 1", {"tau": 1.0}),
    Relation("Comp-sum", "GCE", "τ = 1 + q", {"tau": 1.6}, {"q": 0.6}),
    Relation("GCE", CE, "q → 0", {"q": 1e-7}, limit=True),
    Relation("GCE", "MAE", "q = 1", {"q": 1.0}),
    Relation("Bootstrapping", CE, "β = 1", {"beta": 1.0}),
    Relation("Label smoothing", CE, "α = 0", {"alpha": 0.0}),
    Relation("MbLS", CE, "α = 0", {"alpha": 0.0}),
    Relation("MbLS", "MaxSup", "M = 0, α = λ", {"alpha": 0.2, "margin": 0.0}, {"lam": 0.2}),
    Relation("MaxSup", CE, "λ = 0", {"lam": 0.0}),
    Relation("ACLS", CE, "α = 0", {"alpha": 0.0}),
    Relation("LDAM", CE, "m = 0, s = 1", {"max_margin": 0.0, "scale": 1.0}),
    Relation("Logit adjustment", CE, "τ = 0", {"tau": 0.0}),
    Relation("Vector scaling", "Logit adjustment", "γ = 0", {"gamma": 0.0, "tau": 0.7}, {"tau": 0.7}),
    Relation("Class-balanced", CE, "β = 0", {"beta": 0.0}),
)
"""General -> special; neighbours here are neighbours on the map of the part."""
