"""Bounds the cost of regular expressions and grammars before llguidance compiles them.

With n optional parts in a pattern of s characters, repetitions written out, the time grows with
n · s and faster: 0.1 s for 400 optional letters before 400 letters, 0.8 s for 2,000 before 2,000,
10 s for 5,000 before 5,000. Its own limits do not count this work.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_PATTERN_SIZE = 16_384
"""Characters and classes, repetitions written out. At this size, a token costs 5 ms."""
MAX_PATTERN_COST = 500_000
"""Optional parts times size: about 0.3 s."""

MAX_DEPTH = 50
"""Of terminals in terminals."""

_HUGE = 10**9
_IMPORTED_SIZE = 10
"""Of a terminal from llguidance's own library."""
_IMPORT = re.compile(r"(?m)^[ \t]*%import\b(.*)$")
_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
_COUNTED = r"\{\s*(?P<least>\d+)\s*(?P<range>,\s*(?P<most>\d+)?\s*)?\}"
_PATTERN = re.compile(
    rf"""
    \\[pP]\{{[^}}]*\}} | \\[xuU]\{{[^}}]*\}} | \\.   # an escaped character, or a class by name
    | \[\^?\]?(?:\\.|\[:[^]]*:\]|[^]\\])*\]          # a class
    | {_COUNTED}
    | \(\?(?:P?<\w+>|[a-zA-Z-]*:)? | .
    """,
    re.VERBOSE | re.DOTALL,
)
_LARK = re.compile(
    rf"""
    //[^\n]*
    | "(?P<text>(?:\\.|[^"\\])*)"i?
    | /(?P<regex>(?:\\.|[^/\\\n])+)/[a-z]*
    | <[^<>\s]*>
    | {_COUNTED}
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*) | .
    """,
    re.VERBOSE | re.DOTALL,
)
_DEFINITION = re.compile(r"(?m)^[ \t]*[?!]?([A-Za-z_]\w*)[ \t]*(?:\[[^]\n]*\])?(?:\.-?\d+)?[ \t]*:")


class TooCostly(Exception):
    """A pattern that would take too long; the message is for its author."""


@dataclass(frozen=True)
class _Cost:
    """Of a part of a pattern, repetitions written out."""

    size: int
    optional: int = 0

    def repeated(self, least: str, range_: str | None, most: str | None) -> "_Cost":
        """Return the cost with a counted repetition; one without an end is one part more."""
        times = _number(least) if range_ is None else _number(most or least)
        open_ended = range_ is not None and most is None
        times = max(times + open_ended, 1)
        return _Cost(
            min(self.size * times, _HUGE),
            min(self.optional * times + (range_ is not None), _HUGE),
        )


def _number(digits: str) -> int:
    return _HUGE if len(digits) > 9 else int(digits)


class _Sum:
    """The cost of a sequence with groups, part by part."""

    def __init__(self) -> None:
        self._groups: list[list[_Cost]] = [[]]

    def add(self, part: _Cost) -> None:
        self._groups[-1].append(part)

    def sign(self, sign: str) -> None:
        """Take an operator, a bracket or, in another text, any character that has no cost."""
        if sign.startswith("("):
            self._groups.append([])
        elif sign == ")" and len(self._groups) > 1:
            inner = _total(self._groups.pop())
            self.add(inner)
        elif sign in ("?", "*", "+") and self._groups[-1]:
            self._change_last("0", ",", "1")

    def count(self, found: re.Match[str]) -> None:
        """Take a counted repetition."""
        if self._groups[-1]:
            self._change_last(found["least"], found["range"], found["most"])

    def total(self) -> _Cost:
        return _total([part for group in self._groups for part in group])

    def _change_last(self, least: str, range_: str | None, most: str | None) -> None:
        self._groups[-1][-1] = self._groups[-1][-1].repeated(least, range_, most)


def _total(parts: list[_Cost]) -> _Cost:
    return _Cost(sum(part.size for part in parts), sum(part.optional for part in parts))


def refuse_costly_pattern(pattern: str) -> None:
    """Raise TooCostly for a regular expression that would compile or match slowly."""
    _refuse(_pattern_cost(pattern))


def refuse_costly_grammar(lark: str) -> None:
    """Raise TooCostly for a Lark grammar with such a terminal.

    Also for operators on terminals, whose cost has no such bound.
    """
    found = list(_DEFINITION.finditer(lark))
    ends = [*(each.start() for each in found[1:]), len(lark)]
    bodies = {each[1]: lark[each.end() : end] for each, end in zip(found, ends, strict=True)}
    if len(bodies) < len(found):
        raise TooCostly("a rule or terminal is defined twice")
    imports = " ".join(_IMPORT.findall(lark))
    costs = {name: _Cost(_IMPORTED_SIZE, _IMPORTED_SIZE) for name in _NAME.findall(imports)}
    for name in bodies:
        _refuse(_definition_cost(name, bodies, costs, ()))


def _pattern_cost(pattern: str) -> _Cost:
    parts = _Sum()
    for token in _PATTERN.finditer(pattern):
        if token["least"] is not None:
            parts.count(token)
        elif token[0] == "[":
            raise TooCostly("a class in it has no end")
        elif token[0][0] in "()|?*+^$":
            parts.sign(token[0])
        else:
            parts.add(_Cost(1))
    return parts.total()


def _definition_cost(
    name: str, bodies: Mapping[str, str], costs: dict[str, _Cost], path: tuple[str, ...]
) -> _Cost:
    """Return the cost of a definition. A rule inside a rule is a part of size 1."""
    if name in costs:
        return costs[name]
    if name not in bodies:
        raise TooCostly(f"the terminal {name} is not defined")
    if name in path or len(path) > MAX_DEPTH:
        raise TooCostly(f"the terminal {name} contains itself, or is nested too deeply")
    parts = _Sum()
    for token in _LARK.finditer(bodies[name]):
        if token["least"] is not None:
            parts.count(token)
        elif token["text"] is not None:
            parts.add(_Cost(max(len(token["text"]), 1)))
        elif token["regex"] is not None:
            parts.add(_pattern_cost(token["regex"]))
        elif (used := token["name"]) is not None:
            within = (*path, name)
            is_rule = not used.isupper()
            parts.add(_Cost(1) if is_rule else _definition_cost(used, bodies, costs, within))
        elif token[0] in "&~":
            raise TooCostly(f"the operator {token[0]} on terminals is not supported")
        elif token[0] == '"':
            raise TooCostly(f"a text in {name} has no end")
        else:
            parts.sign({"[": "(", "]": ")"}.get(token[0], token[0]))
    costs[name] = parts.total()
    return costs[name]


def _refuse(cost: _Cost) -> None:
    if cost.size > MAX_PATTERN_SIZE:
        raise TooCostly(
            f"it has {cost.size} characters once its repetitions are written out; the limit is "
            f"{MAX_PATTERN_SIZE}"
        )
    if cost.size * cost.optional > MAX_PATTERN_COST:
        raise TooCostly(
            f"it has {cost.size} characters and {cost.optional} optional or repeated parts once "
            f"its repetitions are written out; their product may be at most {MAX_PATTERN_COST}"
        )
