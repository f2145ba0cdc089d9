import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from papermill.translators import PythonTranslator

from lib.run import grid, parameters
from lib.run.parameters import ParameterError

CELL = """
gain: float = 80  # scale of the similarities (sec. 3.2); in (0, 1e4]
steps: int = 3  # how many; in [1, inf)
form: str = "pair"  # label form (sec. 3, after the in-text example); one of pair, class
depths: list[int] = [
    4,  # small
    24,
]  # depths compared; in [1, 100]
limit: int | None = None  # most of them, none for no limit; in [0, 9]
fast: bool = True  # whether to skip nothing
label: str = "# no comment; in [0, 1]"  # text
"""
DECLARED = parameters.parse(CELL)


def test_parse_reads_what_the_cell_says():
    assert list(DECLARED) == ["gain", "steps", "form", "depths", "limit", "fast", "label"]
    gain = DECLARED["gain"]
    assert (gain.type, gain.default, gain.meaning) == ("float", 80, "scale of the similarities (sec. 3.2)")
    assert gain.allowed == "float in (0, 10000]"
    assert (gain.open_low, gain.open_high) == (True, False)
    assert DECLARED["form"].choices == ("pair", "class")
    assert DECLARED["form"].meaning == "label form (sec. 3, after the in-text example)"
    assert DECLARED["depths"].type == "list[int]"
    assert DECLARED["depths"].default == [4, 24]
    assert DECLARED["limit"].type == "int | None"
    assert DECLARED["label"].default == "# no comment; in [0, 1]"
    assert DECLARED["label"].high == float("inf")


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        ("gain = 2.0  # meaning", "not `name: type = default"),
        ("gain: float = 2.0", "no comment"),
        ("gain: complex = 2.0  # meaning", "unknown type 'complex'"),
        ("gain: float = 2.0  # meaning; in [3, 4]", "takes float in [3, 4]"),
        ("gain: int = 2.0  # meaning", "takes int"),
        ("gain: str = 'x'  # meaning; one of a, b", "one of a, b"),
        ("gain: float = 1 / 255  # meaning", "not a plain value"),
        ("gain: float = = 2", "not Python"),
    ],
)
def test_parse_refuses_faulty_cells(cell, complaint):
    with pytest.raises(ParameterError) as caught:
        parameters.parse(cell)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("gain", "1e2", 100.0),
        ("gain", "3", 3.0),
        ("steps", "7", 7),
        ("form", "class", "class"),
        ("depths", "1,2, 3", [1, 2, 3]),
        ("depths", "[1, 2]", [1, 2]),
        ("depths", "5", [5]),
        ("limit", "none", None),
        ("limit", "4", 4),
        ("fast", "False", False),
        ("label", "none", "none"),
        ("label", "[1, 2]", "[1, 2]"),
        ("label", "", ""),
    ],
)
def test_convert_by_declared_type(name, text, value):
    found = DECLARED[name].convert(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gain", "0"),  # open end
        ("gain", "nan"),
        ("gain", "inf"),
        ("gain", "1+1"),  # never evaluated
        ("gain", "true"),
        ("gain", ""),
        ("steps", "2.0"),
        ("steps", "0"),
        ("steps", "none"),
        ("form", "triple"),
        ("depths", "1,x"),
        ("depths", "[1, 2"),
        ("depths", "[1, 200]"),
        ("depths", "[true]"),
        ("depths", "[" * 100_000),
        ("limit", "10"),
        ("fast", "maybe"),
    ],
)
def test_convert_refuses_and_says_what_is_allowed(name, text):
    with pytest.raises(ParameterError) as caught:
        DECLARED[name].convert(text)
    message = str(caught.value)
    assert message.startswith(f"parameter {name}: ")
    assert message.endswith(f"it takes {DECLARED[name].allowed}")


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(ParameterError, match=r"no parameter 'gian'; nearest: gain"):
        parameters.known("gian", DECLARED)


@pytest.mark.parametrize("pairs", [["gain"], ["=3"], ["gain=1", "gain=2"]])
def test_split_refuses(pairs):
    with pytest.raises(ParameterError):
        parameters.split(pairs)


def test_split_keeps_everything_after_the_first_sign():
    assert parameters.split(["label=a=b\n=c"]) == {"label": "a=b\n=c"}


def test_resolve_lets_later_layers_win_and_drops_defaults():
    found = parameters.resolve(DECLARED, {"steps": 9, "fast": False}, {"steps": 3})
    assert found == {"fast": False}
    with pytest.raises(ParameterError):
        parameters.resolve(DECLARED, {"steps": True})
    with pytest.raises(ParameterError):
        parameters.resolve(DECLARED, {"depths": 4})


@given(st.text())
def test_any_text_reaches_the_notebook_as_itself(text):
    """The line that papermill writes into the notebook is a literal of the very same string."""
    (statement,) = ast.parse(PythonTranslator.codify({"label": text})).body
    assert ast.literal_eval(statement.value) == text


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("gain", "0.1, 0.25,0.4", [0.1, 0.25, 0.4]),
        ("steps", "2..5", [2, 3, 4, 5]),
        ("steps", "10..30..10", [10, 20, 30]),
        ("steps", "1,1,2", [1, 2]),
        ("depths", "1,2;[3]", [[1, 2], [3]]),
        ("label", '["a,b", "c"]', ["a,b", "c"]),
        ("label", "a,b", ["a", "b"]),
        ("limit", "none,3", [None, 3]),
        ("fast", "true,false", [True, False]),
    ],
)
def test_grid_values(name, text, values):
    assert grid.values(DECLARED[name], text) == values


@pytest.mark.parametrize(("name", "text"), [("steps", "0..3"), ("steps", "5..2"), ("gain", "1,,2"), ("label", "[1]")])
def test_grid_refuses(name, text):
    with pytest.raises(ParameterError):
        grid.values(DECLARED[name], text)


def test_grid_points_are_all_combinations():
    found = grid.points(DECLARED, {"steps": "1..2", "fast": "true,false"})
    assert found == [{"steps": s, "fast": f} for s in (1, 2) for f in (True, False)]
    for texts in ({}, {"steps": "1..20000"}, {"nothing": "1"}):
        with pytest.raises(ParameterError):
            grid.points(DECLARED, texts)
