"""The grid of a sweep: values of each parameter, and the points that they span."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

from lib.run.parameters import Parameter, ParameterError, known

_SPAN = re.compile(r"\s*(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?\s*")
LARGEST = 10_000
"""More points than this are taken for a slip."""


def values(parameter: Parameter, text: str) -> list[Any]:
    """The values that a text names.

    ``0.1,0.25,0.4`` for numbers and names, ``0..4`` or ``0..100..10`` for whole numbers (both ends belong), a JSON
    list for strings that hold commas, and ``1,2;3,4`` for parameters that are lists themselves.

    Raises:
        ParameterError: a value is not allowed, or there is none.
    """
    span = _SPAN.fullmatch(text)
    if span and parameter.item == "int" and not parameter.is_list:
        found = [parameter.check(value) for value in range(int(span[1]), int(span[2]) + 1, int(span[3] or 1))]
    elif parameter.is_list:
        found = [parameter.convert(piece.strip()) for piece in text.split(";") if piece.strip()]
    elif text.lstrip().startswith("["):
        try:
            pieces = json.loads(text)
        except ValueError as error:
            raise ParameterError(f"parameter {parameter.name}: {text!r} is not a JSON list: {error}") from error
        found = [parameter.check(piece) for piece in pieces]
    else:
        found = [parameter.convert(piece if parameter.item == "str" else piece.strip()) for piece in text.split(",")]
    if not found:
        raise ParameterError(f"parameter {parameter.name}: {text!r} names no value")
    return [value for index, value in enumerate(found) if value not in found[:index]]


def points(declared: Mapping[str, Parameter], texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """All combinations, the last parameter changing fastest.

    Raises:
        ParameterError: unknown parameter, a value that is not allowed, no parameter, or far too many points.
    """
    if not texts:
        raise ParameterError("a sweep needs at least one parameter: -p margin=0.1,0.25,0.4")
    axes = {name: values(known(name, declared), text) for name, text in texts.items()}
    size = 1
    for name, axis in axes.items():
        size *= len(axis)
        if size > LARGEST:
            raise ParameterError(f"more than {LARGEST} points (parameter {name} has {len(axis)} values)")
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
