"""JSON as an Ollama template can write it, and the same text in Python.

Ollama's `json` is compact and escapes <, > and &; maps are in the order of their keys; of a tool
only the fields below are left. Tuned models have seen JSON with spaces or indented, so that the
template writes the outer objects member by member; only values inside them are compact.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Members = Sequence[tuple[str, str, str | None]]
"""Key, the Go text of the value, and the Go condition under which the member is written."""


@dataclass(frozen=True)
class JsonStyle:
    """The white space of JSON text, as `json.dumps` describes it."""

    comma: str = ", "
    colon: str = ": "
    indent: int | None = None

    def dumps(self, value: Any) -> str:
        separators = (self.between, self.colon)
        return json.dumps(value, ensure_ascii=False, indent=self.indent, separators=separators)

    def line(self, depth: int) -> str:
        """Return the white space before what stands at a depth."""
        return "" if self.indent is None else "\n" + " " * self.indent * depth

    @property
    def between(self) -> str:
        """The comma between two members, without the line break of indented text."""
        return self.comma if self.indent is None else ","


STYLES = (JsonStyle(), JsonStyle(",", ":"), JsonStyle(indent=4), JsonStyle(indent=2))


def go_quoted(text: str) -> str:
    """Return an action that writes a text; "" for none.

    Ollama drops characters that cannot be printed, so these are written by their numbers.
    """
    if not text:
        return ""
    quoted = json.dumps(text, ensure_ascii=False)
    safe = "".join(each if each.isprintable() else _by_number(each) for each in quoted)
    return f"{{{{ {safe} }}}}"


def _by_number(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def go_arguments(style: JsonStyle) -> str:
    """Return Go text that writes the arguments of a call, which is the dot."""
    return _map(style, 0, ".Function.Arguments", "{{ json $value }}")


def arguments_text(style: JsonStyle, arguments: Mapping[str, Any]) -> str:
    """Return what `go_arguments` writes."""
    return _written(style, {key: _Compact(arguments[key]) for key in sorted(arguments)}, 0)


def go_tool(style: JsonStyle, *, whole: bool) -> str:
    """Return Go text that writes a tool, or only its function; the tool is the dot."""
    depth = 1 if whole else 0
    function = _object(style, depth, _function_members(style, depth))
    if not whole:
        return function
    members = (("type", "{{ json .Type }}", None), ("function", function, None))
    return _object(style, 0, members)


def tool_text(style: JsonStyle, tool: Mapping[str, Any], *, whole: bool) -> str:
    """Return what `go_tool` writes."""
    function = tool["function"]
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") or {}
    known: dict[str, Any] = {
        "name": function["name"],
        "description": function.get("description"),
        "parameters": {
            "type": parameters.get("type", ""),
            "properties": {key: _known_property(properties[key]) for key in sorted(properties)},
            "required": parameters.get("required"),
        },
    }
    known["parameters"] = _without_empty(known["parameters"], ("required",))
    known = _without_empty(known, ("description",))
    return _written(style, {"type": tool["type"], "function": known} if whole else known, 0)


def _function_members(style: JsonStyle, depth: int) -> Members:
    parameters = ".Function.Parameters"
    one = _object(style, depth + 3, _property_members())
    return (
        ("name", "{{ json .Function.Name }}", None),
        ("description", "{{ json .Function.Description }}", ".Function.Description"),
        (
            "parameters",
            _object(
                style,
                depth + 1,
                (
                    ("type", f"{{{{ json {parameters}.Type }}}}", None),
                    ("properties", _map(style, depth + 2, f"{parameters}.Properties", one), None),
                    (
                        "required",
                        _list(style, depth + 2, f"{parameters}.Required"),
                        f"{parameters}.Required",
                    ),
                ),
            ),
            None,
        ),
    )


def _property_members() -> Members:
    return (
        ("type", "{{ json $value.Type }}", "$value.Type"),
        ("description", "{{ json $value.Description }}", "$value.Description"),
        ("enum", "{{ json $value.Enum }}", "$value.Enum"),
        ("items", "{{ json $value.Items }}", "$value.Items"),
    )


def _known_property(value: Mapping[str, Any]) -> dict[str, Any]:
    names = ("type", "description", "enum", "items")
    return {name: _Compact(value[name]) for name in names if value.get(name)}


def _object(style: JsonStyle, depth: int, members: Members) -> str:
    """Return Go text for an object. A variable is its comma if the first member is optional."""
    comma = f"$comma{depth}" if members[0][2] else ""
    text = '{{ "{" }}' + (f'{{{{ {comma} := "" }}}}' if comma else "")
    for number, (key, value, condition) in enumerate(members):
        before = style.between if number and not comma else ""
        name = go_quoted(before + style.line(depth + 1) + json.dumps(key) + style.colon)
        member = f"{{{{ {comma} }}}}{name}{value}{_next(style, comma)}" if comma else name + value
        text += f"{{{{ if {condition} }}}}{member}{{{{ end }}}}" if condition else member
    return text + go_quoted(style.line(depth) + "}")


def _map(style: JsonStyle, depth: int, go: str, value: str) -> str:
    """Return Go text for an object with the entries of a map, `$key` and `$value`."""
    comma, end = f"$comma{depth}", go_quoted(style.line(depth))
    start = f'{{{{ "{{" }}}}{{{{ {comma} := "" }}}}{{{{ range $key, $value := {go} }}}}'
    key = f"{go_quoted(style.line(depth + 1))}{{{{ json $key }}}}{go_quoted(style.colon)}"
    last_line = f"{{{{ if {go} }}}}{end}{{{{ end }}}}" if end else ""
    each = f"{{{{ {comma} }}}}{key}{value}{_next(style, comma)}"
    return start + each + "{{ end }}" + last_line + '{{ "}" }}'


def _list(style: JsonStyle, depth: int, go: str) -> str:
    comma = f"$comma{depth}"
    return (
        f'{{{{ "[" }}}}{{{{ {comma} := "" }}}}{{{{ range {go} }}}}{{{{ {comma} }}}}'
        f"{go_quoted(style.line(depth + 1))}{{{{ json . }}}}"
        f"{_next(style, comma)}{{{{ end }}}}"
        f'{go_quoted(style.line(depth))}{{{{ "]" }}}}'
    )


def _next(style: JsonStyle, comma: str) -> str:
    return f"{{{{ {comma} = {json.dumps(style.between)} }}}}"


@dataclass(frozen=True)
class _Compact:
    """A value that Ollama's `json` writes."""

    value: Any


def _written(style: JsonStyle, value: Any, depth: int) -> str:
    if isinstance(value, Mapping):
        entries = (
            f"{_compact(key)}{style.colon}{_written(style, each, depth + 1)}"
            for key, each in value.items()
        )
        return _joined(style, depth, entries, "{}")
    if isinstance(value, list | tuple):
        return _joined(style, depth, (_written(style, each, depth + 1) for each in value), "[]")
    return _compact(value.value if isinstance(value, _Compact) else value)


def _joined(style: JsonStyle, depth: int, entries: Iterator[str], brackets: str) -> str:
    lines = [style.line(depth + 1) + entry for entry in entries]
    end = style.line(depth) if lines else ""
    return brackets[0] + style.between.join(lines) + end + brackets[1]


def _compact(value: Any) -> str:
    return escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True))


def escaped(text: str) -> str:
    """Return JSON text with the characters that Go escapes."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _without_empty(value: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: each for key, each in value.items() if each or key not in names}
