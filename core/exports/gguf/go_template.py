"""An Ollama template, which is a Go template, from the parts of a chat template.

A layout line begins with `{{-`, which removes the line break before it; fixed text is written by
actions with quoted text, so that no white space of the layout gets into the prompt. Only the text
before a call is plain: Ollama takes the first plain text under `if .ToolCalls` as the mark of a
call in an answer.
"""

from collections.abc import Iterator

from core.exports.gguf.chat_shape import Calls, ChatShape, Position, Results
from core.exports.gguf.go_json import go_arguments, go_quoted, go_tool
from core.exports.gguf.segments import Segments, Slot


def go_template(shape: ChatShape) -> str:
    """Return the template; it writes what `chat_text` returns."""
    lines = (line for line in _lines(shape) if line)
    return "\n".join("{{-" + line.removeprefix("{{").removeprefix("-") for line in lines)


def _lines(shape: ChatShape) -> Iterator[str]:
    close = _text(shape.results.close) if shape.results else ""
    if shape.tools:
        tool = go_tool(shape.tools.style, whole=shape.tools.whole)
        yield f'{{{{ define "tool" }}}}{tool}{{{{ end }}}}'
    yield "{{ $first := -1 }}{{ $last := -1 }}{{ $told := false }}"
    yield (
        '{{ range $i, $m := .Messages }}{{ if eq .Role "user" }}'
        "{{ if lt $first 0 }}{{ $first = $i }}{{ end }}{{ $last = $i }}{{ end }}{{ end }}"
    )
    yield "{{ range $i, $m := .Messages }}"
    if shape.results:
        told = 'if and $told (ne .Role "tool")'
        yield f"{{{{ {told} }}}}{close}{{{{ $told = false }}}}{{{{ end }}}}"
    yield '{{ if eq .Role "user" }}'
    yield f"{_leads(shape)}{{{{ .Content }}}}{go_quoted(shape.user_end)}"
    yield '{{ else if eq .Role "assistant" }}'
    yield from _assistant(shape)
    if shape.results:
        yield '{{ else if eq .Role "tool" }}'
        yield _result(shape.results)
    yield "{{ end }}"
    yield "{{ end }}"
    yield f"{{{{ if $told }}}}{close}{{{{ end }}}}" if close else ""
    yield go_quoted(shape.header)


def _leads(shape: ChatShape) -> str:
    """Return the text that chooses the lead of a user."""

    def choice(condition: str, yes: str, no: str) -> str:
        if yes == no:
            return yes
        other = f"{{{{ else }}}}{no}" if no else ""
        return f"{{{{ if {condition} }}}}{yes}{other}{{{{ end }}}}"

    def by_given(first: bool, last: bool) -> str:
        places = (Position(first, last, s, t) for s in (True, False) for t in (True, False))
        both, system, tools, neither = (_lead(shape, place) for place in places)
        with_system, without = choice("$.Tools", both, system), choice("$.Tools", tools, neither)
        return choice("$.System", with_system, without)

    of_first, of_others = (
        choice("eq $i $last", by_given(first, True), by_given(first, False))
        for first in (True, False)
    )
    return choice("eq $i $first", of_first, of_others)


def _lead(shape: ChatShape, position: Position) -> str:
    """Return a lead; of a position that the template rejects, that without what it rejects."""
    first, last, system, tools = position
    known = ((system, tools), (system, False), (False, tools), (False, False))
    places = (Position(first, last, *given) for given in known)
    segments = next((shape.leads[place] for place in places if place in shape.leads), ())
    listed = ""
    if how := shape.tools:
        between = f"{{{{ if $n }}}}{go_quoted(how.between)}{{{{ end }}}}" if how.between else ""
        each = f'{between}{{{{ template "tool" $t }}}}'
        listed = f"{{{{ range $n, $t := $.Tools }}}}{each}{{{{ end }}}}"
    slots = {Slot.SYSTEM: "{{ $.System }}", Slot.TOOLS: listed}
    return "".join(slots[each] if isinstance(each, Slot) else go_quoted(each) for each in segments)


def _assistant(shape: ChatShape) -> Iterator[str]:
    content, end = "{{ .Content }}", go_quoted(shape.end)
    how = shape.calls
    if how is None:
        yield f"{go_quoted(shape.start)}{content}{end}"
        return
    start = go_quoted(shape.start)
    if how.start != shape.start:
        start = f"{{{{ if $calls }}}}{go_quoted(how.start)}{{{{ else }}}}{start}{{{{ end }}}}"
    yield f"{{{{- $calls := .ToolCalls }}}}{start}{content}"
    close = _text(how.close)
    yield (
        f"{{{{- if .ToolCalls }}}}{{{{ range $n, $c := .ToolCalls }}}}{_opening(how)}"
        f"{{{{ .Function.Name }}}}{go_quoted(how.middle)}{go_arguments(how.style)}"
        f"{_text(how.end, '{{ .ID }}')}{{{{ end }}}}{close}{{{{ else }}}}{end}{{{{ end }}}}"
    )


def _opening(how: Calls) -> str:
    first = _plain(how.opening)
    if how.after_text is not None and how.after_text != how.opening:
        first = f"{{{{ if $m.Content }}}}{_plain(how.after_text)}{{{{ else }}}}{first}{{{{ end }}}}"
    if how.between is None or how.between == how.opening == how.after_text:
        return first
    return f"{{{{ if $n }}}}{_plain(how.between)}{{{{ else }}}}{first}{{{{ end }}}}"


def _result(how: Results) -> str:
    content = "{{ json .Content }}" if how.quoted else "{{ .Content }}"
    id_ = "{{ .ToolCallID }}"
    opening, between = _text(how.opening, id_), _text(how.between, id_)
    if opening != between:
        opening = f"{{{{ if $told }}}}{between}{{{{ else }}}}{opening}{{{{ end }}}}"
    return f"{opening}{content}{_text(how.end, id_)}{{{{ $told = true }}}}"


def _text(segments: Segments, id_: str = "") -> str:
    return "".join(id_ if isinstance(each, Slot) else go_quoted(each) for each in segments)


def _plain(segments: Segments) -> str:
    """Return plain text, which must not contain an action, or the end of a Modelfile's text."""
    return "".join("{{ .ID }}" if isinstance(each, Slot) else _escaped(each) for each in segments)


def _escaped(text: str) -> str:
    for mark in ("{{", '"""'):
        text = text.replace(mark, go_quoted(mark))
    return text
