"""The grammars of structured output: a constrained text or a tool call, perhaps after reasoning.

Reasoning is unconstrained. If the prompt or the model opens it, the grammar applies after it ends.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from core.batching.call_literals import NAME_HOLE
from core.batching.forced_call import ForcedCall, ForcedPairs
from core.batching.json_types import types_of
from core.batching.turn_format import ReasoningAt, TurnFormat
from core.engine.text.grammar_builder import GrammarBuilder
from core.engine.text.json_schema import fitted
from core.engine.text.schema_cost import refuse_too_costly
from core.engine.text.schema_keywords import without_null_keys
from core.engine.text.structured_output import CompiledGrammar, GrammarVocabulary
from core.engine.text.text_grammars import choice_rule, grammar_rule, regex_rule, unusable
from core.errors import InvalidRequest
from core.spec.generation import (
    ChoiceOutput,
    ConstrainedText,
    GrammarOutput,
    JsonObjectOutput,
    RegexOutput,
    SchemaOutput,
    ToolCallOutput,
)

_TOOLS = "tools"
_NEWLINES = r"/\n{0,2}/"


def compile_text(
    spec: ConstrainedText,
    format_: TurnFormat,
    reasoning: ReasoningAt,
    vocabulary: GrammarVocabulary,
) -> CompiledGrammar:
    """Return the grammar of a constrained text.

    InvalidRequest `invalid_json_schema` or `invalid_grammar` if it cannot be enforced.
    """
    grammar = GrammarBuilder(vocabulary, format_.control)
    parts = [
        _thinking(grammar, format_, reasoning),
        grammar.literal(format_.content.opening.lstrip()),
        _text(grammar, spec),
        grammar.literal(format_.content.closing),
    ]
    start = " ".join(filter(None, parts))
    if isinstance(spec, JsonObjectOutput | SchemaOutput):
        return grammar.compiled(start, spec.param)
    return grammar.compiled(start, spec.param, refusal=unusable, bounds_numbers=False)


def _text(grammar: GrammarBuilder, spec: ConstrainedText) -> str:
    match spec:
        case JsonObjectOutput():
            return grammar.json(fitted({"type": "object"}, spec.param))
        case SchemaOutput():
            return grammar.json(fitted(spec.json_schema, spec.param))
        case RegexOutput():
            return regex_rule(grammar, spec)
        case ChoiceOutput():
            return choice_rule(grammar, spec)
        case GrammarOutput():
            return grammar_rule(grammar, spec)
        case _:
            assert_never(spec)


def compile_call(
    spec: ToolCallOutput,
    format_: TurnFormat,
    tools: Sequence[Mapping[str, Any]],
    reasoning: ReasoningAt,
    vocabulary: GrammarVocabulary,
) -> CompiledGrammar:
    """Return the grammar of one tool call; InvalidRequest if it cannot be enforced."""
    forced = None if format_.calls is None else format_.calls.forced
    if forced is None:
        raise InvalidRequest(
            "The tool-call format of this model's chat template cannot be enforced. "
            'Use tool_choice "auto".',
            param="tool_choice",
            code="unsupported_parameter",
        )
    functions = [tool["function"] for tool in tools]
    chosen = [each for each in functions if spec.name in (None, each["name"])]
    refuse_too_costly([each.get("parameters") for each in chosen], _TOOLS)
    grammar = GrammarBuilder(vocabulary, format_.control)
    calls = " | ".join(_call(grammar, forced, function) for function in chosen)
    parts = [_thinking(grammar, format_, reasoning), grammar.rule(calls)]
    return grammar.compiled(" ".join(filter(None, parts)), _TOOLS)


def _thinking(grammar: GrammarBuilder, format_: TurnFormat, reasoning: ReasoningAt) -> str:
    """Return the symbols of reasoning before structured output."""
    section = format_.reasoning
    if section is None or reasoning == "closed" or not format_.writes_reasoning:
        return ""
    text = f"{grammar.until(section.closing.strip())} {grammar.rule(_NEWLINES)}"
    if reasoning == "open":
        return text
    return f"({grammar.literal(section.opening.strip())} {text})?"


def _call(grammar: GrammarBuilder, forced: ForcedCall, function: Mapping[str, Any]) -> str:
    """Return the symbols of a call to one tool."""
    name = function["name"]
    given = without_null_keys(function.get("parameters") or {})
    parameters = _closed({"type": "object"} | (given or {"properties": {}}))
    opening = grammar.literal(forced.before.lstrip().replace(NAME_HOLE, name) + name + forced.amid)
    if forced.pairs is None:
        arguments = grammar.json(fitted(parameters, _TOOLS))
    else:
        arguments = _pairs(grammar, forced.pairs, fitted(parameters, _TOOLS))
    return " ".join(filter(None, [opening, arguments, grammar.literal(forced.after.rstrip())]))


def _closed(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters that forbid undescribed arguments.

    Uncertain models generate such arguments without end. A tool without parameters accepts none.
    """
    open_keys = {"additionalProperties", "patternProperties", "unevaluatedProperties", "$ref"}
    composed = {"allOf", "anyOf", "oneOf", "if", "not", "dependentSchemas"}
    described = parameters.get("properties")
    if described is None or (open_keys | composed | {"minProperties"}) & parameters.keys():
        return parameters
    if not described and parameters.get("required"):
        return parameters
    return {**parameters, "additionalProperties": False}


def _pairs(grammar: GrammarBuilder, pairs: ForcedPairs, parameters: Mapping[str, Any]) -> str:
    """Return the symbols of arguments as pairs of key and value, in the order of the schema."""
    required = parameters.get("required") or ()
    symbols = []
    for key, schema in (parameters.get("properties") or {}).items():
        opening = grammar.literal(pairs.before + key + pairs.amid)
        pair = f"{opening} {_value(grammar, schema, parameters, pairs.after)}"
        symbols.append(pair if key in required else f"({pair})?")
    return " ".join(symbols)


def _value(grammar: GrammarBuilder, schema: Any, root: Mapping[str, Any], closing: str) -> str:
    """Return the symbols of a value and its closing text: strings verbatim, others as JSON."""
    own = schema if isinstance(schema, Mapping) else {}
    texts = own.get("enum") or ([own["const"]] if "const" in own else [])
    if texts and isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        choices = " | ".join(grammar.literal(text) for text in texts)
        return f"({choices}) {grammar.literal(closing)}"
    if "string" in types_of(schema, root):
        return grammar.until(closing)
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return f"{grammar.json({**definitions, **own})} {grammar.literal(closing)}"
