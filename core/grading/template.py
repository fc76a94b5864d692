"""The templates of graders: `{{ item.city }}`, `{{ sample.output_tools[0].function.name }}`.

A variable is a namespace (`item` or `sample`) and a path in it: names after dots, indexes and
quoted keys in brackets. A string is inserted as it is, any other value as JSON. What is inserted is
not rendered again, so a text of a user may contain braces. Source: OpenAI's graders guide.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from core.grading.result import GraderFailed
from core.grading.sample import Sample

Namespace = Literal["item", "sample"]

LONGEST_TEXT = 2_000_000
"""Characters of a rendered text: a short template may name a long text a thousand times."""
LONGEST_SHOWN = 80
"""Characters of a template in a message."""

# The quantifiers are possessive, so that a text of megabytes without a match fails at once.
_NAME = r"""\.[^\s.\[\]{}'"]++"""
_INDEX = r"""\[-?[0-9]{1,9}\]"""
_KEY = r"""\["(?:[^"\\]|\\.)*+"\]|\['(?:[^'\\]|\\.)*+'\]"""
_STEP = re.compile(f"{_NAME}|{_INDEX}|{_KEY}", re.DOTALL)
_VARIABLE = re.compile(
    rf"\{{\{{\s*+({'|'.join(get_args(Namespace))})((?:{_STEP.pattern})++)\s*+\}}\}}", re.DOTALL
)
_UNCLOSED = re.compile(rf"\{{\{{\s*+(?:{'|'.join(get_args(Namespace))})\b")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class InvalidTemplate(ValueError):
    """A text has braces that hold no variable; the message says which, and what to write."""


@dataclass(frozen=True)
class Variable:
    """One variable of a text."""

    namespace: Namespace
    path: tuple[str | int, ...]
    written: str
    """As the text has it, without the braces."""

    @property
    def name(self) -> str:
        """Return the first key of the path: a field of the item or of the sample."""
        return str(self.path[0])


def names_of(text: str) -> list[Variable]:
    """Return the variables of a text in their order. Raises InvalidTemplate."""
    return [part for part in _parts(text) if isinstance(part, Variable)]


def render(text: str, item: Mapping[str, Any], sample: Sample | None = None) -> str:
    """Return the text with the values of its variables.

    Raises GraderFailed: `invalid_variable_error` for a variable without a value, or a text that is
    no template; `sample_parse_error` for `sample.output_json` of an answer that is not JSON.
    """
    namespaces = {"item": item, "sample": None if sample is None else sample.namespace()}
    rendered: list[str] = []
    length = 0
    try:
        for part in _parts(text):
            added = part if isinstance(part, str) else _written(_value(part, namespaces, sample))
            rendered.append(added)
            length += len(added)
            if length > LONGEST_TEXT:
                raise GraderFailed(
                    "other_error",
                    f"A template gives a text of more than {LONGEST_TEXT:,} characters. Shorten "
                    "the values of its variables, or name them less often.",
                )
    except InvalidTemplate as error:
        raise GraderFailed("invalid_variable_error", str(error)) from None
    return "".join(rendered)


def _parts(text: str) -> Iterator[str | Variable]:
    """Yield the variables and the texts between them. Raises InvalidTemplate."""
    end = 0
    for match in _VARIABLE.finditer(text):
        yield _between(text[end : match.start()])
        namespace: Any = match[1]
        path = tuple(_step(step[0]) for step in _STEP.finditer(match[2]))
        yield Variable(namespace, path, f"{namespace}{match[2]}")
        end = match.end()
    yield _between(text[end:])


def _between(text: str) -> str:
    """Return a text without variables; InvalidTemplate if it seems to have one."""
    start = text.find("{{")
    end = text.find("}}", start + 2) if start >= 0 else -1
    if end >= 0:
        shown = text[start : end + 2][:LONGEST_SHOWN]
        raise InvalidTemplate(
            f"{shown!r} is not a variable. Write {{{{ item.<name> }}}} or "
            "{{ sample.output_text }}; nested values with .name, [0] or ['a key']."
        )
    if unclosed := _UNCLOSED.search(text):
        shown = text[unclosed.start() :][:LONGEST_SHOWN]
        raise InvalidTemplate(f"A variable has no end: {shown!r}. Close it with }}}}.")
    return text


def _step(written: str) -> str | int:
    if written[0] == ".":
        return written[1:]
    if written[1] in "'\"":
        return _ESCAPED.sub(r"\1", written[2:-2])
    return int(written[1:-1])


def _value(variable: Variable, namespaces: Mapping[str, Any], sample: Sample | None) -> Any:
    """Return the value at the path. A name that is a number may be an index of a list."""
    is_json = sample is None or sample.is_json
    if variable.namespace == "sample" and variable.name == "output_json" and not is_json:
        raise GraderFailed(
            "sample_parse_error", f"The answer is not JSON, so {variable.written} has no value."
        )
    value = namespaces[variable.namespace]
    for step in variable.path:
        match value:
            case Mapping() if str(step) in value:
                value = value[str(step)]
            case list() | tuple() if (index := _index(step)) is not None and _has(value, index):
                value = value[index]
            case _:
                raise GraderFailed(
                    "invalid_variable_error",
                    f"The variable {variable.written[:LONGEST_SHOWN]} has no value: there is "
                    f"nothing at {str(step)[:LONGEST_SHOWN]!r}.",
                )
    return value


def _index(step: str | int) -> int | None:
    if isinstance(step, int):
        return step
    return int(step) if step.isascii() and step.isdigit() and len(step) < 10 else None


def _has(values: list[Any] | tuple[Any, ...], index: int) -> bool:
    return -len(values) <= index < len(values)


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise GraderFailed("other_error", "A variable is nested too deeply for JSON.") from None
