"""Answers of a given form: which tokens may come next.

The grammars and their matching are those of llguidance, with bounds on what one token may cost: all
streams of a model wait for it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import llguidance.hf
import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from core.batching.tool_calls import ToolCallFormat
from core.errors import InvalidRequest
from core.spec.generation import JsonObjectForm, JsonSchemaForm, ToolCallForm

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

LIMITS = LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=50_000,
    max_grammar_size=100_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)
"""Some 10 ms for a grammar, and as much at most for a token."""

MAX_SCHEMA_CHARACTERS = 32_768
MAX_LITERAL_CHARACTERS = 4096
"""Of one text that an answer has to repeat or match: every token of it costs in proportion."""

MAX_MULTIPLE_OF = 100_000
"""A grammar has as many states as this number; beyond, it takes seconds to make."""

_JSON_OPTIONS: "JsonCompileOptions" = {"whitespace_pattern": r"[\x20\x0A]{1,16}"}
"""Room to be readable, and none to write spaces for ever."""

_EXPORTED_JSON_OPTIONS: "JsonCompileOptions" = {
    "whitespace_flexible": False,
    "item_separator": r",[\x20\x0A]{0,16}",
    "key_separator": r":[\x20\x0A]{0,16}",
}
"""A part of what the options above allow. llguidance 1.7, which vLLM has, knows no pattern of white
space and would write it for ever."""

PARAM = "response_format"


@dataclass(frozen=True)
class GrammarVocabulary:
    """A vocabulary as llguidance needs it."""

    tokenizer: LLTokenizer
    tokens: int
    """Rows of the model's embedding."""
    end_token_ids: tuple[int, ...]


class AnswerForm:
    """A grammar for one vocabulary; every answer is held to it by a `Held` of its own."""

    def __init__(self, lark: str, first: LLMatcher, vocabulary: GrammarVocabulary) -> None:
        self.lark = lark
        """For another server, whose llguidance may be older."""
        self._first = first
        self._vocabulary = vocabulary

    def start(self) -> "Held":
        """Return what holds one answer to the form, from its first token on."""
        ends = list(self._vocabulary.end_token_ids)
        return Held(self._first.deep_copy(), ends, self._vocabulary.tokens)


class Held:
    """One answer that is held to a form."""

    def __init__(self, matcher: LLMatcher, end_token_ids: list[int], tokens: int) -> None:
        self._matcher = matcher
        self._end_token_ids = end_token_ids
        self._tokens = tokens

    @property
    def error(self) -> str:
        """Why the form cannot be followed any further; empty as long as it can."""
        message: str = self._matcher.get_error()
        return message

    def allowed(self) -> NDArray[np.bool_]:
        """Return by token (V,) which may come next; an end only where the form is complete."""
        if self._matcher.is_stopped():
            allowed_V = np.zeros(self._tokens, dtype=bool)
        else:
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            allowed_V = np.unpackbits(bits, count=self._tokens, bitorder="little").astype(bool)
        may_end = self._matcher.is_stopped() or self._matcher.is_accepting()
        allowed_V[self._end_token_ids] = may_end
        if not allowed_V.any():  # nothing follows: the caller looks at `error`
            allowed_V[self._end_token_ids] = True
        return allowed_V

    def take(self, token: int) -> None:
        """Go on by a token that was allowed."""
        if token not in self._end_token_ids:
            self._matcher.consume_token(token)


def grammar_vocabulary(
    tokenizer: PreTrainedTokenizerFast, tokens: int, end_token_ids: Collection[int]
) -> GrammarVocabulary:
    """Return a vocabulary of `tokens` tokens as llguidance needs it; takes up to a second."""
    ends = tuple(sorted(end_token_ids))
    made = llguidance.hf.from_tokenizer(tokenizer, tokens, list(ends))
    return GrammarVocabulary(made, tokens, ends)


def compile_form(
    spec: JsonObjectForm | JsonSchemaForm, vocabulary: GrammarVocabulary
) -> AnswerForm:
    """Return the grammar of a form; InvalidRequest `invalid_json_schema` when there is none."""
    schema: dict[str, Any] = {"type": "object"}
    if isinstance(spec, JsonSchemaForm):
        schema = spec.json_schema
    _refuse_too_costly(schema, PARAM)
    return _compile("start: json", schema, _JSON_OPTIONS, PARAM, vocabulary)


def compile_call(
    spec: ToolCallForm,
    format_: ToolCallFormat | None,
    tools: Sequence[Mapping[str, Any]],
    vocabulary: GrammarVocabulary,
) -> AnswerForm:
    """Return the grammar of one call of a tool; InvalidRequest when it cannot be enforced."""
    if format_ is None or format_.wrapped == "deeper":
        raise InvalidRequest(
            "The chat template of this model writes tool calls in a way that cannot be enforced. "
            'Leave tool_choice at "auto".',
            param="tool_choice",
            code="unsupported_parameter",
        )
    functions = [tool["function"] for tool in tools]
    calls = [
        {
            "type": "object",
            "properties": {
                format_.name_key: {"const": function["name"]},
                format_.arguments_key: {"type": "object"} | (function.get("parameters") or {}),
            },
            "required": [format_.name_key, format_.arguments_key],
            "additionalProperties": False,
        }
        for function in functions
        if spec.name in (None, function["name"])
    ]
    schema: dict[str, Any] = {"anyOf": calls}
    if format_.wrapped == "list":
        schema = {"type": "array", "items": schema, "minItems": 1, "maxItems": 1}
    _refuse_too_costly(schema, "tools")
    before, after = (_marker(text, vocabulary) for text in (format_.before, format_.after))
    return _compile(f"start: {before} json {after}", schema, {}, "tools", vocabulary)


def _compile(
    start: str,
    schema: Mapping[str, Any],
    options: "JsonCompileOptions",
    param: str,
    vocabulary: GrammarVocabulary,
) -> AnswerForm:
    """Return the grammar of an answer; in its rule `start`, `json` stands for the schema."""
    grammar = LLMatcher.grammar_from_lark(_lark(start, schema, options))
    first = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=LIMITS)
    if first.is_error():
        raise _unfit(first.get_error(), param)
    first.compute_bitmask()  # copies share what this finds out, and the model thread does not wait
    return AnswerForm(_lark(start, schema, _EXPORTED_JSON_OPTIONS), first, vocabulary)


def _lark(start: str, schema: Mapping[str, Any], options: "JsonCompileOptions") -> str:
    return f"{start}\njson: %json {_literal({**schema, 'x-guidance': options})}"


def _literal(value: Any) -> str:
    """Return a value as it stands in a grammar, which no server shall take for one in BNF."""
    return json.dumps(value).replace("::=", r"\u003a:=")


def _marker(text: str, vocabulary: GrammarVocabulary) -> str:
    """Return a text as it stands in a grammar, with what is special to llguidance by its id.

    That is every added token in angle brackets, `<tool_call>` for one: as mere text it is offered,
    and refused when it comes.
    """
    tokenizer = vocabulary.tokenizer
    parts: list[str] = []
    for token in filter(tokenizer.is_special_token, tokenizer.tokenize_str(text)):
        before, _, text = text.partition(tokenizer.decode_str([token]))
        parts += [_literal(before), f"<[{token}]>"]
    return " ".join([*parts, _literal(text)])


def _refuse_too_costly(schema: Mapping[str, Any], param: str) -> None:
    """Refuse what would take long to compile, or hold up every token of everybody's answers."""
    characters = len(json.dumps(schema))
    if characters > MAX_SCHEMA_CHARACTERS:
        raise _unfit(f"it has {characters} characters, and may have {MAX_SCHEMA_CHARACTERS}", param)
    parts: list[Any] = [schema]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            _refuse_costly_keyword(part, param)
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)


def _refuse_costly_keyword(schema: dict[str, Any], param: str) -> None:
    literals = [schema.get("const"), schema.get("pattern"), *_items(schema.get("enum"))]
    longest = max((len(each) for each in (*literals, *schema) if isinstance(each, str)), default=0)
    if longest > MAX_LITERAL_CHARACTERS:
        raise _unfit(
            f"a const, enum, pattern or name has {longest} characters, and may have "
            f"{MAX_LITERAL_CHARACTERS}",
            param,
        )
    multiple = schema.get("multipleOf")
    if isinstance(multiple, int | float) and multiple > MAX_MULTIPLE_OF:
        raise _unfit(f"multipleOf may be {MAX_MULTIPLE_OF} at most", param)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _unfit(reason: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Answers cannot be held to this JSON schema: {reason[:500]}",
        param=param,
        code="invalid_json_schema",
    )
