"""Cross-entropy with a penalty of `lib.regularisers`, listed for leaderboards."""

from __future__ import annotations

from lib.losses.registry import Range, register_loss
from lib.regularisers.acls import ACLS, acls_loss
from lib.regularisers.margin_smoothing import MbLS, mbls_loss
from lib.regularisers.maxsup import MaxSup, maxsup_loss

__all__ = []

register_loss(
    "MaxSup",
    maxsup_loss,
    chapter="maxsup",
    module=MaxSup,
    defaults={"lam": 0.1},
    tunable={"lam": Range(0.01, 0.5, log=True)},
)
register_loss(
    "MbLS",
    mbls_loss,
    chapter="acls",
    module=MbLS,
    defaults={"alpha": 0.1, "margin": 4.0},
    tunable={"alpha": Range(0.01, 0.5, log=True), "margin": Range(0.0, 10.0)},
)
register_loss(
    "ACLS",
    acls_loss,
    chapter="acls",
    module=ACLS,
    defaults={"alpha": 0.1, "margin": 6.0},
    tunable={"alpha": Range(0.01, 0.5, log=True), "margin": Range(1.0, 10.0)},
)
