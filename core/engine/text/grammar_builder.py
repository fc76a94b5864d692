"""Builds grammars in llguidance's dialect of Lark, rule by rule."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher

from core.batching.call_literals import ID_HOLE
from core.batching.coded_tokens import CodedTokens
from core.engine.text.schema_keywords import unfit
from core.engine.text.schema_numbers import with_bounds
from core.engine.text.structured_output import LIMITS, CompiledGrammar, GrammarVocabulary
from core.errors import InvalidRequest

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

JSON_OPTIONS: "JsonCompileOptions" = {
    "whitespace_flexible": False,
    "item_separator": r",\x20?",
    "key_separator": r":\x20?",
}
"""At most one space, after a comma or a colon: the two spacings that models have learned, without
unbounded white space. Decision 20 has the figures."""

_ID = "/[A-Za-z0-9]{9}/"
"""Nine letters and digits: an id that every template accepts."""


class GrammarBuilder:
    """A grammar under construction; texts are coded (`core.batching.coded_tokens`)."""

    def __init__(self, vocabulary: GrammarVocabulary, control: CodedTokens) -> None:
        self._vocabulary = vocabulary
        self._control = control
        self._rules: list[str] = []
        self._bounded: list[str] = []
        """The same rules for another server."""

    def rule(self, body: str, attributes: str = "") -> str:
        """Add a rule and return its name."""
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {body}")
        self._bounded.append(self._rules[-1])
        return name

    def json(self, schema: Mapping[str, Any]) -> str:
        """Return the rule of a JSON value. References resolve inside the schema."""
        name = self.rule(_json(schema))
        self._bounded[-1] = f"{name}: {_json(with_bounds(schema))}"
        return name

    def literal(self, text: str) -> str:
        """Return the symbols of a text; "" for an empty text."""
        return " ".join(map(_symbol, self._parts(text)))

    def one_of(self, texts: Iterable[str]) -> str:
        """Return the symbols of one of these texts.

        A terminal: as alternatives of a rule, llguidance would support only 2,000 of them.
        """
        name = f"TEXT{len(self._rules)}"
        self._rules.append(f"{name}: {' | '.join(map(_quoted, texts))}")
        self._bounded.append(self._rules[-1])
        return name

    def until(self, closing: str) -> str:
        """Return the symbols of any text up to and including a literal."""
        first, *rest = self._parts(closing)
        if isinstance(first, int):
            return " ".join([self.rule(r"/(?s:.*)/"), *map(_symbol, [first, *rest])])
        text = self.rule(r"/(?s:.*)/", f"[suffix={_quoted(first)}]")
        return " ".join([text, *map(_symbol, rest)])

    def compiled(
        self,
        start: str,
        param: str,
        *,
        refusal: Callable[[str, str], InvalidRequest] = unfit,
        bounds_numbers: bool = True,
    ) -> CompiledGrammar:
        """Compile the grammar with these start symbols.

        An unusable grammar raises `refusal` of the reason and the field. With `bounds_numbers`,
        numbers have at most `MAX_DIGITS` digits, as in JSON.
        """
        lark = "\n".join([f"start: {start}", *self._rules])
        matcher = LLMatcher(
            self._vocabulary.tokenizer,
            LLMatcher.grammar_from_lark(lark),
            log_level=0,
            limits=LIMITS,
        )
        if not matcher.is_error():
            matcher.compute_bitmask()  # copies share the result, so the model thread does not wait
        if matcher.is_error():
            raise refusal(matcher.get_error(), param)
        bounded = "\n".join([f"start: {start}", *self._bounded])
        return CompiledGrammar(bounded, matcher, self._vocabulary, bounds_numbers=bounds_numbers)

    def _parts(self, coded: str) -> list[str | int]:
        """Return a literal as texts and token ids.

        Control tokens and other tokens that llguidance treats as special, such as `<tool_call>`,
        are ids. As text, llguidance would offer such a token and then reject it.
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
    """Return a value quoted for the grammar, so that no server mistakes the grammar for BNF."""
    return json.dumps(value).replace("::=", r"\u003a:=")
