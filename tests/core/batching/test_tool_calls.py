"""Calls are read back as the template writes them, however the text comes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from core.batching.call_literals import Frame
from core.batching.coded_tokens import CodedTokens
from core.batching.probe import Turn, answer_with
from core.batching.template import ChatTemplate
from core.batching.tool_calls import (
    JsonArguments,
    JsonCalls,
    LooseArguments,
    NamedCalls,
    PairArguments,
    ToolCall,
    ToolCallFormat,
    read_calls,
)
from core.batching.turn_format import TurnFormat
from core.batching.turn_probe import turn_format
from core.batching.turn_reader import TurnMarkers, TurnReader
from core.spec.generation import ToolCalled

HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
EACH = "{% for c in m.tool_calls or [] %}"

TEMPLATES = {
    "hermes": EACH + "<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}",
    "llama": EACH
    + '{"name": {{ c.function.name | tojson }}, "parameters": {{ c.function.arguments | tojson }}}'
    "{% endfor %}",
    "mistral": "{% if m.tool_calls %}[TOOL_CALLS] ["
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{{ ', ' if not loop.last }}{% endfor %}]"
    "{% endif %}",
    "mistral with ids": EACH + "[TOOL_CALLS]{{ c.function.name }}[CALL_ID]{{ c.id }}[ARGS]"
    "{{ c.function.arguments | tojson }}{% endfor %}",
    "openai": "{% if m.tool_calls %}calls: {{ m.tool_calls | tojson }}{% endif %}",
    "command": "{% if m.tool_calls %}Action: ```json\n[{% for c in m.tool_calls %}"
    '{"tool_name": {{ c.function.name | tojson }}, '
    '"parameters": {{ c.function.arguments | tojson }}}'
    "{{ ', ' if not loop.last }}{% endfor %}]\n```{% endif %}",
    "functionary": EACH + "<function={{ c.function.name }}>{{ c.function.arguments | tojson }}"
    "</function>{% endfor %}",
    "minimax": "{% if m.tool_calls %}<minimax:tool_call>\n{% for c in m.tool_calls %}"
    '<invoke name="{{ c.function.name }}">\n{% for k, v in c.function.arguments.items() %}'
    '<parameter name="{{ k }}">{{ v if v is string else v | tojson }}</parameter>\n{% endfor %}'
    "</invoke>\n{% endfor %}</minimax:tool_call>{% endif %}",
    "seed": EACH + "<seed:tool_call>\n<function={{ c.function.name }}>\n"
    "{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>"
    "{{ v if v is string else v | string }}</parameter>\n{% endfor %}</function>\n"
    "</seed:tool_call>{% endfor %}",
    "python": "{% if m.tool_calls %}[{% for c in m.tool_calls %}{{ c.function.name }}("
    "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v | tojson }}"
    "{{ ', ' if not loop.last }}{% endfor %}){{ ', ' if not loop.last }}{% endfor %}]{% endif %}",
}
UNREADABLE = EACH + "<call name={{ c.function.name }}/>{% endfor %}"

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("weather", {"city": "Zürich", "days": [1, 2], "deep": {"a": "}"}}),
    ("stop", {}),
]
TOOLS = {"weather": {"properties": {"city": {"type": "string"}}}, "stop": None}


def with_template(tokenizer: PreTrainedTokenizerFast, calls: str) -> PreTrainedTokenizerFast:
    tokenizer.chat_template = HEAD + calls + TAIL
    return tokenizer


def written(tokenizer: PreTrainedTokenizerFast, text: str, calls: Any) -> str:
    """What a model that was trained on such calls writes, without the end of its turn."""
    turn = answer_with(ChatTemplate(tokenizer), text, calls)
    assert isinstance(turn, Turn)
    return turn.answer.rstrip().removesuffix("<|im_end|>")


def read(format_: TurnFormat, text: str, size: int) -> tuple[str, list[tuple[str, Any]]]:
    """Read a text that comes in pieces of some size."""
    reader = TurnReader(format_, TurnMarkers(format_), TOOLS)
    parts = [reader.push(text[start : start + size]) for start in range(0, len(text), size)]
    parts.append(reader.finish())
    calls = [(call.name, json.loads(call.arguments)) for part in parts for call in part.calls]
    return "".join(part.text for part in parts), calls


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("family", TEMPLATES)
def test_calls_are_read_back(chat_tokenizer, family, number):
    format_ = turn_format(with_template(chat_tokenizer, TEMPLATES[family]))
    answer = written(chat_tokenizer, "", CALLS[:number])
    for size in (1, 3, 1000):
        text, calls = read(format_, answer, size)
        assert text.strip() == ""
        assert calls == CALLS[:number]


@pytest.mark.parametrize("family", [each for each in TEMPLATES if each not in ("llama", "python")])
def test_text_before_a_call_is_text_and_comes_at_once(chat_tokenizer, family):
    format_ = turn_format(with_template(chat_tokenizer, TEMPLATES[family]))
    answer = written(chat_tokenizer, "Let me look.", CALLS[:1])
    text, calls = read(format_, answer, 2)
    assert (text, calls) == ("Let me look.", CALLS[:1])
    reader = TurnReader(format_, TurnMarkers(format_), TOOLS)
    assert reader.push("Let me look.").text == "Let me look."


def hermes() -> TurnFormat:
    frame = Frame("", "<tool_call>\n", "\n</tool_call>", "\n")
    return TurnFormat(CodedTokens({}), calls=JsonCalls(frame, "name", "arguments"))


def bare() -> TurnFormat:
    return TurnFormat(CodedTokens({}), calls=JsonCalls(Frame("", "", ""), "name", "arguments"))


@given(text=st.text(alphabet='<tool_call>[]{}:"a \n', max_size=40), size=st.integers(1, 5))
@pytest.mark.parametrize("make", [hermes, bare])
def test_what_is_no_call_comes_out_as_it_went_in(make, text, size):
    assert read(make(), text, size) == (text, [])


@pytest.mark.parametrize("calls", [UNREADABLE, ""], ids=["no arguments", "no calls"])
def test_a_template_that_writes_no_arguments_is_not_understood(chat_tokenizer, calls):
    assert turn_format(with_template(chat_tokenizer, calls)).calls is None


def test_a_broken_call_is_not_guessed():
    broken = '<tool_call>\n{"name": "weather", "arguments": {"city": "Z'
    assert read(hermes(), broken, 4) == (broken, [])
    whole = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>\n'
    assert read(hermes(), whole + broken, 4) == (whole + broken, [])


def test_text_after_calls_is_text():
    call = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
    assert read(hermes(), f"{call}\nI stopped.", 3) == ("I stopped.", [CALLS[1]])


def test_an_object_that_names_no_tool_is_text_where_calls_have_no_marker():
    for text in ('{"name": "Bob", "age": 3}', '{"name": "stop"} and more', "[stop()]"):
        assert read(bare(), text, 3) == (text, [])
    assert read(bare(), '{"name": "stop"}', 3) == ("", [CALLS[1]])


def test_brackets_without_end_are_text_in_good_time():
    """The parser of Python goes as deep as the brackets do, and the engine waits for it."""
    for text in ("[" * 100_000, '{"a":' * 50_000, "<tool_call>" + "[" * 100_000):
        for format_ in (hermes(), bare()):
            assert read(format_, text, 100_000) == (text, [])


def test_brackets_that_are_read_but_too_deep_to_be_written_are_text():
    """Python reads a little deeper than it writes; how deep depends on who calls."""
    for depth in range(800, 1020):
        arguments = '{"a": ' + "[" * depth + "]" * depth + "}"
        text = '<tool_call>\n{"name": "f", "arguments": ' + arguments + "}\n</tool_call>"
        found = read_calls(hermes().calls, text, {})
        assert found.text == text or [call.arguments for call in found.calls] == [arguments]
    assert found.text == text


PAIRS = PairArguments("\n<parameter=", ">\n", "\n</parameter>", "\n</function>")
KEY_VALUE = NamedCalls(Frame("", "<function=", "\n</function>", "\n"), ">", PAIRS)


@pytest.mark.parametrize(
    ("calls", "written", "name", "arguments"),
    [
        (
            JsonCalls(Frame("", "<f>", "</f>"), "name", "arguments"),
            r'<f>{"name": "f◆\ud800", "arguments": {"◆": "◆é◇\ud800"}}</f>',
            "f<|im_start|>?",
            {"<|im_start|>": '<|im_start|>é<|"|>\ud800'},
        ),
        (
            NamedCalls(Frame("", "<f>", "</f>"), "=", JsonArguments()),
            r'<f>f={"◆": "◆é◇\ud800"}</f>',
            "f",
            {"<|im_start|>": '<|im_start|>é<|"|>\ud800'},
        ),
        (
            KEY_VALUE,
            "<function=f>\n<parameter=◆>\n◆é◇\n</parameter>\n</function>",
            "f",
            {"<|im_start|>": '<|im_start|>é<|"|>'},
        ),
    ],
    ids=["json", "named", "pairs"],
)
def test_control_tokens_in_a_call_are_spelled_and_surrogates_stay_escaped(
    calls, written, name, arguments
):
    control = CodedTokens({"<|im_start|>": 1, '<|"|>': 2})
    format_ = TurnFormat(control, calls=calls)
    reader = TurnReader(format_, TurnMarkers(format_), {})
    reader.push(written.translate(dict(zip(map(ord, "◆◇"), control.codes.values(), strict=True))))
    (call,) = reader.finish().calls
    assert (call.name, json.loads(call.arguments)) == (name, arguments)
    assert "é" in call.arguments, "what needs no escape has none"
    ToolCalled(choice=0, name=call.name, arguments=call.arguments).model_dump_json()


@pytest.mark.parametrize(
    ("schema", "written", "value"),
    [
        ({"type": "string"}, "007", "007"),
        ({"type": "string"}, "null", "null"),
        ({"type": "integer"}, "7", 7),
        ({"type": "integer"}, "seven", "seven"),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "false", False),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "None", None),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "7", "7"),
        ({"$ref": "#/$defs/count"}, "7", 7),
        ({"enum": ["1", "2"]}, "2", "2"),
        ({"enum": [1, 2]}, "2", 2),
        ({"type": "array"}, '["a", 1]', ["a", 1]),
        ({}, '{"a": 1}', {"a": 1}),
        ({}, "plain words", "plain words"),
        ({"type": "string"}, "two\nlines </parameter> in", "two\nlines </parameter> in"),
    ],
)
def test_a_bare_value_is_what_its_schema_says(schema, written, value):
    parameters = {"properties": {"a": schema}, "$defs": {"count": {"type": "integer"}}}
    text = f"<function=look>\n<parameter=a>\n{written}\n</parameter>\n</function>"
    read = read_calls(KEY_VALUE, text, {"look": parameters})
    assert [json.loads(call.arguments) for call in read.calls] == [{"a": value}]


def test_values_in_python_and_in_quotes_of_their_own():
    python = NamedCalls(Frame("[", "", "", ", ", "]"), "", LooseArguments(('"', "'"), True, True))
    text = """[look(a='it\\'s', b=[1, None, {'c': True}], d="x, y"), stop()]"""
    read = read_calls(python, text, dict.fromkeys(("look", "stop")))
    assert [json.loads(call.arguments) for call in read.calls] == [
        {"a": "it's", "b": [1, None, {"c": True}], "d": "x, y"},
        {},
    ]
    gemma = NamedCalls(Frame("", "call:", ";"), "", LooseArguments(("|",), False))
    text = 'call:look{a:|say "no", {b}|,c:[1,|x|,{d:null}],e:-0.5};'
    read = read_calls(gemma, text, {})
    assert json.loads(read.calls[0].arguments) == {
        "a": 'say "no", {b}',
        "c": [1, "x", {"d": None}],
        "e": -0.5,
    }


@given(text=st.text(alphabet="look(){}[]=:,'\"|<>/parmetfuncion \n\\1", max_size=60))
@pytest.mark.parametrize(
    "format_",
    [
        KEY_VALUE,
        NamedCalls(Frame("[", "", "", ", ", "]"), "", LooseArguments(('"', "'"), True, True)),
        NamedCalls(Frame("", "", ""), "", LooseArguments(("|",), False)),
        NamedCalls(Frame("", "<f=", ""), ">", JsonArguments()),
    ],
    ids=["pairs", "python", "loose", "named"],
)
def test_whatever_is_written_reading_ends_and_loses_nothing(format_: ToolCallFormat, text: str):
    read = read_calls(format_, text, {"look": None})
    assert read.calls or read.text == text
    for call in read.calls:
        assert isinstance(call, ToolCall)
        assert isinstance(json.loads(call.arguments), dict)
