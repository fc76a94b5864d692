"""Grammars in llguidance's kind of Lark, rule by rule."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher

from core.batching.call_literals import ID_HOLE
from core.batching.coded_tokens import CodedTokens
from core.engine.text.schema_keywords import unfit
from core.engine.text.schema_numbers import with_bounds
from core.engine.text.structured_output import LIMITS, CompiledGrammar, GrammarVocabulary

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

JSON_OPTIONS: "JsonCompileOptions" = {
    "whitespace_flexible": False,
    "item_separator": r",\x20?",
    "key_separator": r":\x20?",
}
"""At most one space, after a comma or a colon: both spacings of JSON that models have learnt, and
no white space that a model could write for ever. Decision 20 has the figures."""

_ID = "/[A-Za-z0-9]{9}/"
"""Nine letters and digits, which every template takes for an id."""


class GrammarBuilder:
    """Rules in the making; texts are coded (`core.batching.coded_tokens`)."""

    def __init__(self, vocabulary: GrammarVocabulary, control: CodedTokens) -> None:
        self._vocabulary = vocabulary
        self._control = control
        self._rules: list[str] = []
        self._bounded: list[str] = []
        """The rules for another server."""

    def rule(self, body: str, attributes: str = "") -> str:
        """Add a rule and return its name."""
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {body}")
        self._bounded.append(self._rules[-1])
        return name

    def json(self, schema: Mapping[str, Any]) -> str:
        """Return the rule of a JSON value. References in a schema are to that schema."""
        name = self.rule(_json(schema))
        self._bounded[-1] = f"{name}: {_json(with_bounds(schema))}"
        return name

    def literal(self, text: str) -> str:
        """Return a text as symbols, nothing for none."""
        return " ".join(map(_symbol, self._parts(text)))

    def until(self, closing: str) -> str:
        """Return any text up to a literal, and that literal, which the text does not hold."""
        first, *rest = self._parts(closing)
        if isinstance(first, int):
            return " ".join([self.rule(r"/(?s:.*)/"), *map(_symbol, [first, *rest])])
        text = self.rule(r"/(?s:.*)/", f"[suffix={_quoted(first)}]")
        return " ".join([text, *map(_symbol, rest)])

    def compiled(self, start: str, param: str) -> CompiledGrammar:
        """Return the grammar that begins with these symbols; InvalidRequest for an unfit schema."""
        lark = "\n".join([f"start: {start}", *self._rules])
        matcher = LLMatcher(
            self._vocabulary.tokenizer,
            LLMatcher.grammar_from_lark(lark),
            log_level=0,
            limits=LIMITS,
        )
        if matcher.is_error():
            raise unfit(matcher.get_error(), param)
        matcher.compute_bitmask()  # copies share what this finds; the model thread does not wait
        bounded = "\n".join([f"start: {start}", *self._bounded])
        return CompiledGrammar(bounded, matcher, self._vocabulary)

    def _parts(self, coded: str) -> list[str | int]:
        """Return a literal as texts and ids of tokens.

        By its id goes every control token, and what else is special to llguidance: each added
        token in angle brackets, `<tool_call>` for one. As mere text it is offered, and refused
        when it comes.
        """
        tokenizer = self._vocabulary.tokenizer
        parts: list[str | int] = []
        for piece in self._control.parts(coded):
            if isinstance(piece, int):
                parts.append(piece)
                continue
            text = piece
            for token in filter(tokenizer.is_special_token, tokenizer.tokenize_str(text)):
                before, _, text = text.partition(tokenizer.decode_str([token]))
                parts += [before, token]
            parts.append(text)
        return [part for part in parts if part != ""]


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {_quoted({**schema, 'x-guidance': JSON_OPTIONS})}"


def _symbol(part: str | int) -> str:
    if isinstance(part, int):
        return f"<[{part}]>"
    return f" {_ID} ".join(_quoted(text) if text else "" for text in part.split(ID_HOLE)).strip()


def _quoted(value: Any) -> str:
    """Return a value as it stands in a grammar, which no server shall take for one in BNF."""
    return json.dumps(value).replace("::=", r"\u003a:=")
