"""Schemas as users have them: a schema that works as a form works as the arguments of a call."""

import datetime
import enum
import json
import random
import re
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from llguidance import LLMatcher
from pydantic import BaseModel

import core.models
from core.engine.text.vocabulary import Vocabulary, read_vocabulary
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec
from core.spec.generation import SchemaOutput, StructuredOutputSpec, ToolCallOutput


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(BaseModel):
    name: str
    colour: Colour | None = None


class Node(BaseModel):
    value: int
    children: list["Node"] = []


class Trip(BaseModel):
    start: Place
    stops: list[Place]
    by_name: dict[str, Place]
    day: datetime.date
    kind: Literal["bus", "train"] = "bus"
    cost: int | str | None = None


PLACE = {"name": "Bern", "colour": "red"}
CASES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "nested": (Place.model_json_schema(), PLACE, {"name": "Bern", "colour": "green"}),
    "recursive": (
        Node.model_json_schema(),
        {"value": 1, "children": [{"value": 2, "children": []}]},
        {"value": 1, "children": [{"value": "x", "children": []}]},
    ),
    "trip": (
        Trip.model_json_schema(),
        {"start": PLACE, "stops": [PLACE], "by_name": {"b": PLACE}, "day": "2026-11-28"},
        {"start": PLACE, "stops": [PLACE], "by_name": {"b": 1}, "day": "2026-11-28"},
    ),
    "old definitions": (
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/definitions/A"}},
            "required": ["a"],
            "definitions": {"A": {"type": "integer"}},
        },
        {"a": 1},
        {"a": "1"},
    ),
    "itself": (
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "additionalProperties": False},
        {"a": {"a": {}}},
        {"a": {"b": {}}},
    ),
    "names with signs": (
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A~1b~0c%25%20d"}},
            "required": ["a"],
            "$defs": {"A/b~c% d": {"type": "integer"}},
        },
        {"a": 1},
        {"a": "1"},
    ),
    "an id and an anchor": (
        {
            "$id": "http://example.org/a",
            "type": "object",
            "properties": {"a": {"$ref": "#here"}},
            "required": ["a"],
            "$defs": {"A": {"$anchor": "here", "type": "integer"}},
        },
        {"a": 1},
        {"a": "1"},
    ),
    "64 bits": (
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "maximum": 2**63 - 1, "minimum": -(2**63)}},
            "required": ["a"],
        },
        {"a": 10**17},
        {"a": 1.5},
    ),
}


@pytest.fixture(scope="module")
def tiny() -> Vocabulary:
    folder = Path(core.models.__file__).parent / "tiny"
    return read_vocabulary(BaseModelSpec(id="tiny", source=str(folder)), None)


def accepts(vocabulary: Vocabulary, form: StructuredOutputSpec, tools: Any, text: str) -> bool:
    """Whether a form lets a model write a text and end there."""
    held = vocabulary.grammar(form, tools).start()
    for token in vocabulary.tokenizer.encode(text, add_special_tokens=False):
        if not held.allowed()[token] or held.error:
            return False
        held.take(token)
    return bool(held.allowed()[min(vocabulary.end_token_ids)])


def tool(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["compact", "spaced"])
@pytest.mark.parametrize("case", CASES)
def test_a_schema_works_as_a_form_and_as_a_tool(tiny, case, separators):
    schema, right, wrong = CASES[case]
    for value, is_right in ((right, True), (wrong, False)):
        text = json.dumps(value, separators=separators)
        assert accepts(tiny, SchemaOutput(json_schema=schema), (), text) is is_right
        call = f'<tool_call>{{"name": "look", "arguments": {text}}}</tool_call>'
        assert accepts(tiny, ToolCallOutput(), (tool("look", schema),), call) is is_right


def test_tools_may_have_definitions_of_the_same_name(tiny):
    def of(type_: str) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "required": ["a"],
            "$defs": {"A": {"type": type_}},
        }

    tools = (tool("look", of("integer")), tool("stop", of("boolean")))
    for name, value, is_right in (("look", 1, True), ("look", True, False), ("stop", True, True)):
        text = json.dumps({"name": name, "arguments": {"a": value}})
        call = f"<tool_call>{text}</tool_call>"
        assert accepts(tiny, ToolCallOutput(), tools, call) is is_right


@pytest.mark.parametrize("text", ['{ "a":1}', '{"a" :1}', '{"a":  1}', '{"a":1 }', '{"a":\n1}'])
def test_there_is_no_room_for_white_space_but_after_commas_and_colons(tiny, text):
    form = SchemaOutput(json_schema={"type": "object", "properties": {"a": {"type": "integer"}}})
    assert not accepts(tiny, form, (), text)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": -(10**30), "maximum": -(10**25)},
        {"type": "integer", "minimum": 10**25},
        {"const": 2**64 - 1},
        {"enum": [1, 10**30]},
        {"type": "array", "minItems": 10**400},
        {"type": "array", "maxItems": 1.5},
        {"anyOf": [{"multipleOf": 60_000}, {"multipleOf": 60_001}]},
    ],
)
def test_numbers_that_a_grammar_cannot_count_are_refused(tiny, schema):
    """The first of them made llguidance overflow its stack, and the process end."""
    with pytest.raises(InvalidRequest) as caught:
        tiny.grammar(SchemaOutput(json_schema=schema), ())
    assert caught.value.code == "invalid_json_schema"


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "number", "maximum": 1e30, "minimum": 0}, "5.5"),
        ({"type": "string", "maxLength": 2**63 - 1}, '"a"'),
        ({"type": "array", "maxItems": 3.0}, "[1,2]"),
        ({"const": {"maximum": 1e30}}, '{"maximum":1e+30}'),
        ({"type": "object", "properties": {"maximum": {"type": "integer"}}}, '{"maximum":5}'),
    ],
)
def test_bounds_beyond_what_a_grammar_counts_change_no_answer(tiny, schema, text):
    tiny.grammar(SchemaOutput(json_schema=schema), ())
    if "const" not in schema:
        assert accepts(tiny, SchemaOutput(json_schema=schema), (), text)


@pytest.mark.parametrize("number", [2**63 - 1, 2**64 - 1, -(2**63), 922337203685477581])
@pytest.mark.parametrize("bounds", [{}, {"maximum": 10**30}, {"multipleOf": 1}])
def test_an_integer_of_64_bits_can_be_written(tiny, number, bounds):
    own = {"type": "integer", **bounds}
    form = SchemaOutput(json_schema=own)
    assert accepts(tiny, form, (), str(number))
    schema = {"type": "object", "properties": {"n": own}, "required": ["n"]}
    call = f'<tool_call>{{"name": "w", "arguments": {{"n": {number}}}}}</tool_call>'
    assert accepts(tiny, ToolCallOutput(), (tool("w", schema),), call)


@pytest.mark.parametrize(
    "bounds",
    [
        {"type": "integer"},
        {"type": "integer", "multipleOf": 5},
        {"type": "number"},
        {"type": "number", "minimum": 0, "maximum": 1},
        {},
    ],
)
def test_a_number_has_an_end(tiny, bounds):
    schema = {"type": "object", "properties": {"n": bounds}, "required": ["n"]}
    start = '{"n":0.' if bounds.get("type") == "number" else '{"n":'
    for digits, is_right in ((20, True), (25, False), (100, False)):
        text = f"{start}{'5' * digits}}}"
        assert accepts(tiny, SchemaOutput(json_schema=schema), (), text) is is_right


@pytest.mark.parametrize("own", [{}, {"pattern": "^[0-9]+$"}, {"pattern": "^[0-9]{40}$"}])
def test_digits_in_a_text_are_not_counted(tiny, own):
    form = SchemaOutput(json_schema={"type": "string", **own})
    assert accepts(tiny, form, (), json.dumps("7" * 40))


def test_another_server_gets_bounds_that_it_can_count(tiny):
    form = tiny.grammar(SchemaOutput(json_schema={"type": "integer"}), ())
    assert f'"maximum": {2**63 - 1}' in form.lark
    assert not LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(form.lark))


SPELLED = ("<|im_end|>", "x<|im_end|>y", "<|im_start|>", "<|endoftext|>", "<tool_call>", "<think>")


def written(vocabulary: Vocabulary, form: StructuredOutputSpec, tools: Any = ()) -> str:
    """Write what a form allows, the last token of it each time, and end where it may."""
    held = vocabulary.grammar(form, tools).start()
    tokens: list[int] = []
    for _ in range(200):
        allowed = held.allowed()
        assert not held.error, tokens
        if allowed[list(vocabulary.end_token_ids)].any():
            return b"".join(map(vocabulary.token_bytes.text_bytes, tokens)).decode()
        tokens.append(int(allowed.nonzero()[0][-1]))
        held.take(tokens[-1])
    raise AssertionError("it has no end")


@pytest.mark.parametrize("spelled", SPELLED)
def test_a_schema_may_spell_a_control_token(tiny, spelled):
    """As text in plain tokens: the token itself would end the answer, or break it."""
    for value, own in (
        ({"a": spelled}, {"enum": [spelled]}),
        ({spelled: 5}, {"const": 5}),
        ({"a": spelled}, {"type": "string", "pattern": f"^{re.escape(spelled)}$"}),
    ):
        [name] = value
        schema = {
            "type": "object",
            "properties": {name: own},
            "required": [name],
            "additionalProperties": False,
        }
        answer = written(tiny, SchemaOutput(json_schema=schema))
        assert json.loads(answer) == value
        call = written(tiny, ToolCallOutput(), (tool("w", schema),))
        assert json.dumps(value, separators=(",", ":")) in call.replace(": ", ":")


def accepts_arguments(vocabulary: Vocabulary, function: dict[str, Any], arguments: str) -> bool:
    tools = ({"type": "function", "function": {"name": "w", **function}},)
    call = f'<tool_call>{{"name": "w", "arguments": {arguments}}}</tool_call>'
    return accepts(vocabulary, ToolCallOutput(), tools, call)


@pytest.mark.parametrize(
    "own", [{"enum": None}, {"type": None, "enum": ["x"]}, {"items": {"type": None}}]
)
def test_a_null_in_the_schema_of_a_tool_is_no_key(tiny, own):
    given = {"type": "string", **own, "default": None}
    schema = {"type": "object", "properties": {"a": given, "b": None}, "required": ["a"]}
    nulls = {"additionalProperties": None, "$defs": {"A": None}}
    assert accepts_arguments(tiny, {"parameters": {**schema, **nulls}}, '{"a":"x"}')
    assert not accepts_arguments(tiny, {"parameters": {**schema, **nulls}}, '{"a":"x","b":1}')


def test_a_null_that_a_tool_prescribes_stays(tiny):
    for own in ({"const": None}, {"enum": [None]}):
        function = {"parameters": {"properties": {"a": own}, "required": ["a"]}}
        assert accepts_arguments(tiny, function, '{"a":null}')
        assert not accepts_arguments(tiny, function, '{"a":1}')


@pytest.mark.parametrize(
    "function",
    [
        {},
        {"parameters": None},
        {"parameters": {}},
        {"parameters": {"type": "object", "properties": {}, "required": []}},
    ],
)
def test_a_tool_without_parameters_gets_none(tiny, function):
    assert accepts_arguments(tiny, function, "{}")
    assert not accepts_arguments(tiny, function, '{"a":1}')


CHAINED = {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$id": "urn:x", "properties": {"a": {"$id": "urn:x", "type": "integer"}}},
        {"$id": "http://e.org/s/x", "properties": {"a": {"$id": "x", "type": "integer"}}},
        {"$ref": "#"},
        {"$ref": "#/$defs/A", "$defs": CHAINED},
        {"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"], "$defs": CHAINED},
        {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}]}}},
        {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}}},
        {"type": "number", "exclusiveMinimum": 10**15, "exclusiveMaximum": 10**15 + 0.5},
        {"type": "integer", "multipleOf": 99_991},
        {"type": "number", "multipleOf": 0.99991},
        {"anyOf": [{"multipleOf": 10_007}, {"multipleOf": 9_973}]},
        {"multipleOf": 10**400},
        {"$ref": "#/$defs/0", "$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(900)}},
    ],
)
def test_a_schema_that_would_not_be_held_is_refused(tiny, schema):
    with pytest.raises(InvalidRequest) as caught:
        tiny.grammar(SchemaOutput(json_schema=schema), ())
    assert caught.value.code == "invalid_json_schema"
    with pytest.raises(InvalidRequest) as caught:
        tiny.grammar(ToolCallOutput(), (tool("w", schema),))
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "tools")


@pytest.mark.parametrize("multiples", [(20_000,), (19_997,), (127, 131), (100, 250, 500)])
def test_a_multiple_within_the_limit_can_be_written(tiny, multiples):
    """Random digits visit as many states as there are."""
    schema = {"anyOf": [{"type": "integer", "multipleOf": each} for each in multiples]}
    form = tiny.grammar(SchemaOutput(json_schema=schema), ())
    chance = random.Random(0)
    for _ in range(100):
        held = form.start()
        for _ in range(30):
            token = int(chance.choice(held.allowed().nonzero()[0]))
            assert not held.error
            if token in tiny.end_token_ids:
                break
            held.take(token)


@pytest.mark.parametrize(
    ("least", "most", "inside"),
    [(0, 1e-7, "0.00000005"), (0, 0.5, "0.25"), (1, 1.001, "1.0002"), (-1.5, -1, "-1.2")],
)
def test_bounds_that_are_left_out_are_not_written(tiny, least, most, inside):
    schema = {"type": "number", "exclusiveMinimum": least, "exclusiveMaximum": most}
    form = SchemaOutput(json_schema=schema)
    assert accepts(tiny, form, (), inside)
    for bound in (least, most):
        text = format(Decimal(str(bound)), "f")
        assert not accepts(tiny, form, (), text)
