"""Whatever the model would like to say, what it says has the form that was asked for."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import core.models
from core.batching.tool_calls import read_calls
from core.engine.device.sampler import sample
from core.engine.policy.request import ModelKey, Request, SequenceState
from core.engine.text.prompts import parameters_of
from core.engine.text.structured_output import CompiledGrammar
from core.engine.text.vocabulary import read_vocabulary
from core.errors import InvalidRequest
from core.spec.base_model import BaseModelSpec
from core.spec.generation import (
    JsonObjectOutput,
    SamplingSpec,
    SchemaOutput,
    StructuredOutputSpec,
    ToolCallOutput,
)

TINY = BaseModelSpec(id="tiny", source=str(Path(core.models.__file__).parent / "tiny"))
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "größer"]}, "maxItems": 3},
        "inner": {"$ref": "#/$defs/inner"},
    },
    "required": ["name", "age", "tags", "inner"],
    "additionalProperties": False,
    "$defs": {"inner": {"anyOf": [{"type": "null"}, {"type": "boolean"}]}},
}


@pytest.fixture(scope="module")
def vocabulary(base):
    return read_vocabulary(base, None)


def write(vocabulary, form: CompiledGrammar, seed: int, temperature: float = 1.0) -> str:
    """Let a model without any sense write, until it ends."""
    spec = SamplingSpec(seed=seed, temperature=temperature)
    model = ModelKey(None)
    ends = vocabulary.end_token_ids
    sequence = SequenceState(Request("r", model, (1,), spec, 400, ends, grammar=form), 0)
    noise = torch.Generator().manual_seed(seed)
    for _ in range(400):
        logits_1V = torch.randn(1, vocabulary.token_count, generator=noise)
        [token] = sample(logits_1V, [sequence])
        sequence.write(token.token_id)
        assert not sequence.matcher.error
        if token.token_id in ends:
            written = b"".join(map(vocabulary.token_bytes.text_bytes, sequence.tokens))
            return written.decode()
    raise AssertionError("it wrote without end")


@pytest.mark.parametrize("seed", range(8))
def test_noise_becomes_what_the_schema_describes(vocabulary, seed):
    form = vocabulary.grammar(SchemaOutput(json_schema=SCHEMA), ())
    answer = json.loads(write(vocabulary, form, seed))
    jsonschema.validate(answer, SCHEMA)


def test_each_answer_is_held_by_itself(vocabulary):
    form = vocabulary.grammar(SchemaOutput(json_schema=SCHEMA), ())
    assert write(vocabulary, form, 1) == write(vocabulary, form, 1) != write(vocabulary, form, 2)


def test_any_object_is_an_object(vocabulary):
    held = vocabulary.grammar(JsonObjectOutput(), ()).start()
    tokens = vocabulary.tokenizer('{"a": [1, "\U0001f642"]}')["input_ids"]
    for token in tokens:
        assert held.allowed()[token]
        assert not held.allowed()[list(vocabulary.end_token_ids)].any(), "it is not complete yet"
        held.take(token)
    assert held.allowed()[list(vocabulary.end_token_ids)].all()
    assert not vocabulary.grammar(JsonObjectOutput(), ()).start().allowed()[tokens[-1]]


def test_rows_of_a_padded_vocabulary_are_never_allowed(vocabulary):
    allowed_V = vocabulary.grammar(JsonObjectOutput(), ()).start().allowed()
    assert len(allowed_V) == vocabulary.token_count > len(vocabulary.tokenizer)
    assert not allowed_V[len(vocabulary.tokenizer) :].any()


@pytest.mark.parametrize(
    "form",
    [
        SchemaOutput(json_schema={"type": "nonsense"}),
        SchemaOutput(json_schema={"$ref": "#/nowhere"}),
        SchemaOutput(json_schema={"type": "string", "pattern": "("}),
        SchemaOutput(json_schema={"enum": [str(number) * 40 for number in range(100_000)]}),
        SchemaOutput(json_schema={"const": "x" * 5_000}),
        SchemaOutput(json_schema={"items": [{"enum": ["a", "x" * 5_000]}]}),
        SchemaOutput(json_schema={"properties": {"x" * 5_000: {}}}),
        SchemaOutput(json_schema={"type": "integer", "multipleOf": 1_000_003}),
    ],
    ids=["type", "reference", "pattern", "huge", "const", "enum", "name", "multiple"],
)
def test_a_schema_that_cannot_be_enforced_is_refused(vocabulary, form: StructuredOutputSpec):
    with pytest.raises(InvalidRequest) as caught:
        vocabulary.grammar(form, ())
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "response_format")
    assert len(caught.value.message) < 700


TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": parameters}}
    for name, parameters in (
        (
            "look",
            {
                "properties": {"at": {"enum": ["me", "you"]}},
                "required": ["at"],
                "additionalProperties": False,
            },
        ),
        ("stop", {"additionalProperties": False}),
    )
)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", [None, "look"])
def test_a_forced_call_is_one_call_of_an_offered_tool(calling, name, seed):
    form = calling.grammar(ToolCallOutput(name=name), TOOLS)
    text = write(calling, form, seed)
    [call] = read_calls(calling.turn_format.calls, text, parameters_of(TOOLS)).calls
    assert call.name in ("look", "stop") if name is None else call.name == "look"
    if call.name == "look":
        assert json.loads(call.arguments)["at"] in ("me", "you")


def test_a_marker_that_is_a_token_of_its_own_can_be_forced():
    tiny = read_vocabulary(TINY, None)
    call = '<tool_call>{"name": "look", "arguments": {"at": "me"}}</tool_call>'
    tokens = tiny.tokenizer.encode(call, add_special_tokens=False)
    assert tiny.tokenizer.convert_ids_to_tokens(tokens[0]) == "<tool_call>"
    held = tiny.grammar(ToolCallOutput(name="look"), TOOLS).start()
    for token in tokens:
        assert held.allowed()[token]
        held.take(token)
        assert not held.error
    assert held.allowed().nonzero()[0].tolist() == sorted(tiny.end_token_ids)


def test_a_call_that_no_template_shows_cannot_be_forced(vocabulary):
    with pytest.raises(InvalidRequest) as caught:
        vocabulary.grammar(ToolCallOutput(), TOOLS)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tool_choice")
