"""The parameters of a chapter: read from its tagged cell, converted from text by declared type, checked before a run.

One line declares one parameter::

    gamma: float = 80.0  # scale of the similarities (sec. 3.2); in (0, inf)
    form: str = "pair"  # label form (sec. 3); one of pair, class

Text is never evaluated: it is converted by the declared type alone.
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from lib.run import notebook as nb

SCALARS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class ParameterError(ValueError):
    """A parameter that a chapter does not have or cannot take; the text says what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter.

    `item` is the scalar type (of the elements, for a list); `low` and `high` bound each number, open where
    `open_low` / `open_high`; `choices` lists the only values allowed, empty for no such limit.
    """

    name: str
    item: str
    default: Any
    meaning: str
    is_list: bool = False
    optional: bool = False
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def type(self) -> str:
        """The type as it is declared."""
        text = f"list[{self.item}]" if self.is_list else self.item
        return f"{text} | None" if self.optional else text

    @property
    def allowed(self) -> str:
        """What the parameter takes, in words."""
        text = self.type
        if self.choices:
            text += f", one of {', '.join(map(str, self.choices))}"
        if (self.low, self.high) != (-math.inf, math.inf):
            opening, closing = "(" if self.open_low else "[", ")" if self.open_high else "]"
            text += f" in {opening}{self.low:.12g}, {self.high:.12g}{closing}"
        return text

    def refuse(self, value: Any) -> ParameterError:
        """The error for a value."""
        return ParameterError(f"parameter {self.name}: {value!r} is not allowed; it takes {self.allowed}")

    def convert(self, text: str) -> Any:
        """The value that a text from the command line stands for.

        Raises:
            ParameterError: the text is none of this type, or out of range.
        """
        if self.optional and text.strip().lower() in ("none", "null"):
            return None
        try:
            if not self.is_list:
                value = self._scalar(text)
            elif text.lstrip().startswith("["):
                value = json.loads(text)
            else:
                value = [self._scalar(piece.strip()) for piece in text.split(",") if piece.strip()]
        except (ValueError, RecursionError):
            raise self.refuse(text) from None
        return self.check(value)

    def _scalar(self, text: str) -> Any:
        if self.item == "bool":
            if text.strip().lower() not in TRUTH:
                raise ValueError(text)
            return TRUTH[text.strip().lower()]
        return SCALARS[self.item](text)

    def check(self, value: Any) -> Any:
        """The value, as an int widened to a declared float.

        Raises:
            ParameterError: wrong type, not finite, out of range, or none of the choices.
        """
        if value is None and self.optional:
            return None
        if self.is_list:
            if not isinstance(value, list | tuple):
                raise self.refuse(value)
            return [self._check_item(item, value) for item in value]
        return self._check_item(value, value)

    def _check_item(self, item: Any, value: Any) -> Any:
        wanted = SCALARS[self.item]
        if wanted is float and type(item) is int:
            item = float(item)
        if type(item) is not wanted:  # `isinstance` would take True for an int
            raise self.refuse(value)
        if isinstance(item, float) and not math.isfinite(item):
            raise self.refuse(value)
        if self.choices and item not in self.choices:
            raise self.refuse(value)
        if isinstance(item, int | float) and type(item) is not bool:
            too_low = item < self.low or (self.open_low and item == self.low)
            if too_low or item > self.high or (self.open_high and item == self.high):
                raise self.refuse(value)
        return item


_RANGE = re.compile(r"\bin ([\[(])\s*([^,\s]+)\s*,\s*([^\])\s]+)\s*([\])])")
_CHOICES = re.compile(r";\s*one of (.+)$")
_TYPE = re.compile(r"(?:list\[(\w+)\]|(\w+))( \| None)?")


def parse(text: str) -> dict[str, Parameter]:
    """The parameters that a cell declares, in order.

    Raises:
        ParameterError: a line that is no declaration, an unknown type, no comment, or a default out of its range.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ParameterError(f"line {error.lineno} of the parameters cell is not Python: {error.msg}") from error
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, Parameter] = {}
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            raise ParameterError(f"line {node.lineno} of the parameters cell is not `name: type = default  # meaning`")
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        comment = " ".join(comments[line] for line in lines if line in comments)
        try:
            default = ast.literal_eval(node.value)
        except ValueError as error:
            raise ParameterError(f"parameter {node.target.id}: its default is not a plain value") from error
        parameter = _declared(node.target.id, ast.unparse(node.annotation), default, comment)
        found[parameter.name] = parameter
    return found


def _declared(name: str, annotation: str, default: Any, comment: str) -> Parameter:
    match = _TYPE.fullmatch(annotation)
    item = match and (match[1] or match[2])
    if match is None or item not in SCALARS:
        raise ParameterError(
            f"parameter {name}: unknown type {annotation!r}; use {', '.join(SCALARS)}, a list of one, or | None"
        )
    if not comment:
        raise ParameterError(f"parameter {name}: no comment says what it means")
    limits: dict[str, Any] = {}
    choices, bounds = _CHOICES.search(comment), _RANGE.search(comment)
    bare = Parameter(name, item, default, "")
    if choices:
        limits["choices"] = tuple(bare.convert(piece.strip()) for piece in choices[1].split(","))
        comment = comment[: choices.start()]
    elif bounds:
        limits |= {"low": float(bounds[2]), "high": float(bounds[3])}
        limits |= {"open_low": bounds[1] == "(", "open_high": bounds[4] == ")"}
        comment = comment[: bounds.start()]
    meaning = comment.strip().rstrip(";").strip()
    parameter = Parameter(name, item, default, meaning, bool(match[1]), bool(match[3]), **limits)
    parameter.check(default)
    return parameter


def of(notebook: NotebookNode) -> dict[str, Parameter]:
    """The parameters of a notebook.

    Raises:
        ParameterError: not exactly one cell tagged `parameters`, or a fault in it.
    """
    cells = nb.tagged(notebook, "parameters")
    if len(cells) != 1:
        raise ParameterError(f"{len(cells)} cells are tagged `parameters`; there must be one")
    return parse(nb.source(cells[0]))


def known(name: str, declared: Mapping[str, Parameter]) -> Parameter:
    """The parameter of a name.

    Raises:
        ParameterError: there is none; names the nearest.
    """
    if name not in declared:
        near = difflib.get_close_matches(name, declared, n=3, cutoff=0.4) or list(declared)
        raise ParameterError(f"no parameter {name!r}; nearest: {', '.join(near)}")
    return declared[name]


def split(pairs: Iterable[str]) -> dict[str, str]:
    """``name=value`` texts as a mapping.

    Raises:
        ParameterError: no equals sign, or a name given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ParameterError(f"parameter {pair!r} is not of the form name=value")
        if name in found:
            raise ParameterError(f"parameter {name} is given twice")
        found[name] = text
    return found


def resolve(declared: Mapping[str, Parameter], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values that differ from the defaults: later layers win, each checked; text is converted elsewhere.

    Raises:
        ParameterError: unknown name or value that is not allowed.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            merged[name] = known(name, declared).check(value)
    return {name: merged[name] for name in declared if name in merged and merged[name] != declared[name].default}
