"""Methods of machine-learning papers, with the tools that test their claims.

Components live in one room per kind (`losses`, `optim`, `trainers`, `models`, `layers`, `samplers`,
`augment`, `metrics`, `attribution`, `estimators`, `theory`, `regularisers`), one module a paper, and are
imported lazily: ``from lib.losses import CircleLoss``.
"""

__version__ = "0.1.0"
