"""The formula of a multi grader: `0.7 * exact + 0.3 * max(style, 0.5)`.

Numbers, names of graders, `+ - * /`, `^` or `**` for powers, parentheses, and the functions below.
The grammar, with `^` before a sign before it and from right to left, as in mathematics:

    sum     = product {("+" | "-") product}
    product = sign {("*" | "/") sign}
    sign    = ("-" | "+") sign | power
    power   = value [("^" | "**") sign]
    value   = number | name | function "(" sum {"," sum} ")" | "(" sum ")"

All values are floats, so the time of an operation has a bound. Source: OpenAI's graders guide.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

LONGEST_FORMULA = 4096
"""Characters."""
MAX_DEPTH = 64
"""Of parentheses, signs, powers and functions within one another."""

Scores = Mapping[str, float]
Value = Callable[[Scores], float]

_SEVERAL: Mapping[str, Callable[[Sequence[float]], float]] = {"min": min, "max": max}
_ONE: Mapping[str, Callable[[float], float]] = {
    "abs": abs,
    "floor": lambda value: float(math.floor(value)),
    "ceil": lambda value: float(math.ceil(value)),
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
FUNCTIONS = (*_SEVERAL, *_ONE)

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[^\W\d]\w*)|(?P<sign>\*\*|[-+*/^(),]))"
)
_NAME = re.compile(r"[^\W\d]\w*")


class InvalidFormula(ValueError):
    """A formula cannot be read, or has no value; the message says why."""


@dataclass(frozen=True)
class Formula:
    """A formula that was read."""

    names: frozenset[str]
    """Of the graders whose scores it needs."""
    _value: Value

    def value(self, scores: Scores) -> float:
        """Return the value for the scores of all its names.

        Raises InvalidFormula for a division by zero, a root of a negative number, or a value that
        is not finite.
        """
        try:
            value = self._value(scores)
        except ZeroDivisionError:
            raise InvalidFormula("It divides by zero.") from None
        except OverflowError:
            raise InvalidFormula("Its value is too large.") from None
        except ValueError:
            raise InvalidFormula("A function or power has no value for these scores.") from None
        if not math.isfinite(value):
            raise InvalidFormula("Its value is not finite.")
        return value


def is_name(text: str) -> bool:
    """Return whether a formula can name a grader with this key."""
    return _NAME.fullmatch(text) is not None


def read_formula(text: str) -> Formula:
    """Return the formula of a text. Raises InvalidFormula."""
    if len(text) > LONGEST_FORMULA:
        raise InvalidFormula(f"It has more than {LONGEST_FORMULA} characters.")
    reader = _Reader(_tokens(text))
    value = reader.sum(0)
    if reader.next is not None:
        raise InvalidFormula(f"There is {reader.next!r} where an operator is needed.")
    return Formula(frozenset(reader.names), value)


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    text = text.rstrip()
    end = 0
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            rest = text[end:].lstrip()
            raise InvalidFormula(f"There is {rest[:20]!r}, which no formula has.")
        tokens.append(match[0].strip())
        end = match.end()
    return tokens


class _Reader:
    """Reads tokens from left to right; each method returns the value of one rule of the grammar."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._position = 0
        self.names: set[str] = set()

    @property
    def next(self) -> str | None:
        """Return the next token; None at the end."""
        rest = self._tokens[self._position : self._position + 1]
        return rest[0] if rest else None

    def sum(self, depth: int) -> Value:
        first = self.product(depth)
        others: list[tuple[bool, Value]] = []
        while (sign := self._take("+", "-")) is not None:
            others.append((sign == "-", self.product(depth)))
        return _sum(first, others) if others else first

    def product(self, depth: int) -> Value:
        first = self.sign(depth)
        others: list[tuple[bool, Value]] = []
        while (sign := self._take("*", "/")) is not None:
            others.append((sign == "/", self.sign(depth)))
        return _product(first, others) if others else first

    def sign(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise InvalidFormula(f"It is nested more than {MAX_DEPTH} times.")
        sign = self._take("-", "+")
        if sign is None:
            return self.power(depth)
        value = self.sign(depth + 1)
        return value if sign == "+" else lambda scores: -value(scores)

    def power(self, depth: int) -> Value:
        base = self.value(depth)
        if self._take("^", "**") is None:
            return base
        exponent = self.sign(depth + 1)
        return lambda scores: math.pow(base(scores), exponent(scores))

    def value(self, depth: int) -> Value:
        token = self.next
        if token is None:
            raise InvalidFormula("It ends where a number or a name is needed.")
        self._position += 1
        if token == "(":
            inner = self.sum(depth + 1)
            self._require(")")
            return inner
        if token[0].isdigit() or token[0] == ".":
            number = float(token)
            return lambda scores: number
        if not is_name(token):
            raise InvalidFormula(f"There is {token!r} where a number or a name is needed.")
        if self._take("(") is not None:
            return self._call(token, depth)
        self.names.add(token)
        return lambda scores: scores[token]

    def _call(self, name: str, depth: int) -> Value:
        values = [self.sum(depth + 1)]
        while self._take(",") is not None:
            values.append(self.sum(depth + 1))
        self._require(")")
        if name in _SEVERAL:
            several = _SEVERAL[name]
            return lambda scores: several([value(scores) for value in values])
        if name not in _ONE:
            raise InvalidFormula(
                f"There is no function {name[:64]!r}; use one of {', '.join(FUNCTIONS)}."
            )
        if len(values) > 1:
            raise InvalidFormula(f"{name} has {len(values)} values; it takes one.")
        one, [value] = _ONE[name], values
        return lambda scores: one(value(scores))

    def _take(self, *tokens: str) -> str | None:
        """Return the next token and go on if it is one of these."""
        token = self.next
        if token not in tokens:
            return None
        self._position += 1
        return token

    def _require(self, token: str) -> None:
        if self._take(token) is None:
            found = "it ends" if self.next is None else f"there is {self.next!r}"
            raise InvalidFormula(f"A {token!r} is missing: {found} instead.")


def _sum(first: Value, others: Sequence[tuple[bool, Value]]) -> Value:
    """Return the sum; each other part says whether it is subtracted."""

    def value(scores: Scores) -> float:
        total = first(scores)
        for is_less, part in others:
            total += -part(scores) if is_less else part(scores)
        return total

    return value


def _product(first: Value, others: Sequence[tuple[bool, Value]]) -> Value:
    """Return the product; each other part says whether it divides."""

    def value(scores: Scores) -> float:
        total = first(scores)
        for divides, part in others:
            total = total / part(scores) if divides else total * part(scores)
        return total

    return value
