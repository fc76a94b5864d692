"""The formula of a multi grader: what it computes, and that no text harms the service."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.grading.formula import FUNCTIONS, InvalidFormula, is_name, read_formula

SCORES = {"a": 0.5, "b": 2.0, "name": 0.75, "email": 1.0, "größe": 3.0, "min": 7.0}


def value(text: str) -> float:
    return read_formula(text).value(SCORES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1.0),
        (".5e1", 5.0),
        ("2.", 2.0),
        ("(name + email) / 2", 0.875),
        ("0.5 * name + 0.5 * email", 0.875),
        ("1 - a - b", -1.5),
        ("8 / b / 2", 2.0),
        ("2 + 3 * 4", 14.0),
        ("b ^ 3", 8.0),
        ("b ** 3", 8.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("-b ^ 2", -4.0),
        ("(-b) ^ 2", 4.0),
        ("b ^ -1", 0.5),
        ("b * -a", -1.0),
        ("- - + b", 2.0),
        ("min(a, b, 0.25)", 0.25),
        ("max(a)", 0.5),
        ("abs(-a)", 0.5),
        ("floor(2.7) + ceil(2.1)", 5.0),
        ("exp(0) + log(exp(1)) + sqrt(4)", 4.0),
        ("min * min(1, 2)", 7.0),
        ("größe", 3.0),
        ("\n a\t+b ", 2.5),
        ("0 ^ 0", 1.0),
    ],
)
def test_formula_has_the_value_of_mathematics(text: str, expected: float) -> None:
    assert value(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ends"),
        ("a +", "ends"),
        ("a b", "operator"),
        ("(a", "')' is missing"),
        ("a)", "operator"),
        ("a, b", "operator"),
        ("min()", "needed"),
        ("sqrt(1, 2)", "takes one"),
        ("round(a)", "no function 'round'"),
        ("__import__('os')", "no formula has"),
        ("a.b", "no formula has"),
        ("a[0]", "no formula has"),
        ("a % b", "no formula has"),
        ("a // b", "needed"),
        ("a = b", "no formula has"),
        ("lambda: 1", "no formula has"),
        ("1_000", "operator"),
        ("0x10", "operator"),
        ("1e", "operator"),
        ("a" * 5000, "characters"),
        ("(" * 1000 + "a" + ")" * 1000, "nested"),
        ("-" * 1000 + "a", "nested"),
        ("^".join(["a"] * 1000), "nested"),
        ("abs(" * 500 + "a" + ")" * 500, "nested"),
    ],
)
def test_text_that_is_no_formula_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidFormula, match=reason.replace("(", r"\(").replace(")", r"\)")):
        read_formula(text)


@pytest.mark.parametrize(
    "text",
    [
        *("1 / 0", "a / (b - 2)", "0 ^ -1", "(-8) ^ (1 / 3)", "log(0)", "log(-1)", "sqrt(-a)"),
        *("exp(1000)", "9 ^ 9 ^ 9 ^ 9", "10 ^ 308 * 10", "1e999", "1e999 - 1e999", "floor(1e999)"),
    ],
)
def test_formula_without_a_finite_value_says_so(text: str) -> None:
    with pytest.raises(InvalidFormula):
        value(text)


def test_names_are_those_of_scores() -> None:
    assert read_formula("min(a, b) + 2 * a - min").names == {"a", "b", "min"}


@pytest.mark.parametrize(("key", "can"), [("a_1", True), ("my-key", False), ("1a", False)])
def test_key_can_be_named_or_not(key: str, can: bool) -> None:
    assert is_name(key) == can


def test_long_formula_is_read_in_time() -> None:
    """Many parts in a row are no depth."""
    started = time.monotonic()
    assert value("+".join(["1"] * 2000)) == 2000
    assert value("*".join(["1"] * 2000)) == 1
    assert time.monotonic() - started < 10


numbers = st.floats(min_value=-50, max_value=50).map(lambda each: f"({each:.3f})")
formulas = st.recursive(
    numbers | st.sampled_from(["a", "b"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "^"]), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-{}".format),
        st.tuples(st.sampled_from(["abs", "floor", "ceil"]), inner).map("{0[0]}({0[1]})".format),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(
            "{0[0]}({0[1]}, {0[2]})".format
        ),
    ),
    max_leaves=12,
)


def _as_float(function: Callable[[float], int]) -> Callable[[float], float]:
    """Python's integers have no limit: a power of two of them would take for ever."""
    return lambda value: float(function(value))


@given(formulas)
@example("min(0, (-1) ^ 0.5)")
@example("floor((-1) ^ 0.5)")
def test_formula_is_that_of_python(text: str) -> None:
    """Python reads the same text, with `**` for `^`.

    A root of a negative number is complex there: a function of it that has no value is a TypeError.
    """
    names: dict[str, Any] = {"a": 0.5, "b": 2.0}
    names |= {name: _as_float(getattr(math, name)) for name in ("floor", "ceil")}
    try:
        expected = eval(text.replace("^", "**"), {}, names)
    except (ZeroDivisionError, OverflowError, TypeError, ValueError):
        expected = None
    try:
        found = value(text)
    except InvalidFormula:
        found = None
    if isinstance(expected, complex) or (expected is not None and not math.isfinite(expected)):
        expected = None
    if expected is None or found is None:
        assert found is None or expected is not None
    else:
        assert found == pytest.approx(float(expected), rel=1e-6)


@given(st.text(alphabet="ab01.+-*/^(), minexpq", max_size=40))
def test_any_text_has_a_value_or_is_refused(text: str) -> None:
    try:
        formula = read_formula(text)
        result = formula.value(dict.fromkeys(formula.names, 0.5))
    except InvalidFormula as error:
        assert str(error)
    else:
        assert math.isfinite(result)


def test_functions_are_those_of_openai() -> None:
    assert set(FUNCTIONS) == {"min", "max", "abs", "floor", "ceil", "exp", "sqrt", "log"}
