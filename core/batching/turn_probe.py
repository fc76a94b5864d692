"""Detects the answer format of a chat template by rendering known answers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from core.batching.coded_tokens import CodedTokens
from core.batching.probe import NAMES, REASONING, TEXT, Call, answer_with
from core.batching.reasoning_marks import THINK, ReasoningMarks, own_marks
from core.batching.section import Section
from core.batching.template import ChatTemplate
from core.batching.tool_call_format import tool_call_format
from core.batching.tool_call_probes import ONE, Written
from core.batching.turn_format import TurnFormat
from core.batching.turns import Turn

_END_OF_PROMPT = 80
_REASONED = {"reasoning_content": REASONING}


def turn_format(tokenizer: PreTrainedTokenizerFast) -> TurnFormat:
    """Return the answer format of a tokenizer's chat template; plain text without a template."""
    template = ChatTemplate(tokenizer)
    plain = answer_with(template, TEXT)
    if plain is None or TEXT not in plain.answer:
        return TurnFormat(CodedTokens({}))
    reasoned = _reasoned(template, TEXT, ())
    written = Written.by(template)
    turns = [turn for turn in (plain, reasoned, *written.turns) if turn is not None]
    special = special_tokens(tokenizer)
    control = CodedTokens.found_in(_texts(turns), special)
    ends = tuple(special)
    own = own_marks(template)
    marks = _CodedMarks(own or THINK, control)
    reasoning: Section | None
    if reasoned is not None:
        reasoning, content = _sections(plain, reasoned, marks, ends)
    else:
        reasoning = _section_before_call(template, written, marks)
        if reasoning is None and marks.are_known(tokenizer.get_chat_template(), plain.prompt):
            reasoning = marks.section
        content = _content(plain, marks, ends)
    calls = tool_call_format(written, control, ends, reasoning)
    writes = own is not None or reasoned is None
    return TurnFormat(control, reasoning, content, calls, writes, _before_calls(written))


@dataclass(frozen=True)
class _CodedMarks:
    """The marks of reasoning, and the control tokens of the text that is parsed with them."""

    own: ReasoningMarks
    control: CodedTokens

    @property
    def section(self) -> Section:
        """The delimiters of reasoning if the template shows none."""
        opening = self.control.coded(f"{self.own.opening}\n")
        return Section(opening, self.control.coded(self.own.end))

    def are_known(self, source: str, prompt: str) -> bool:
        """Return whether the template's source closes reasoning, or its prompt opens it."""
        return self.own.closing in source or self.own.opened_by(prompt)

    def opening(self, turn: Turn) -> str:
        """Return the text before the reasoning of a turn, in its answer or its prompt."""
        opening = self.control.coded(turn.answer).partition(REASONING)[0]
        in_prompt = self.control.coded(self.own.opening_in(turn.prompt))
        return opening if opening.strip() else in_prompt

    def after(self, turn: Turn) -> str:
        """Return the text after the reasoning of a turn."""
        return self.control.coded(turn.answer).partition(REASONING)[2]


def _texts(turns: Iterable[Turn]) -> Iterator[str]:
    """Yield the answers, and the ends of their prompts, which may open the reasoning."""
    for turn in turns:
        yield turn.answer
        yield turn.prompt[-_END_OF_PROMPT:]


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Return the ids of the tokens without text, by name."""
    ids = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    added = tokenizer.added_tokens_decoder.items()
    return ids | {token.content: id_ for id_, token in added if token.special}


def _reasoned(template: ChatTemplate, text: str, calls: Sequence[Call]) -> Turn | None:
    """Return an answer with reasoning, if the template shows it."""
    turn = answer_with(template, text, calls, _REASONED)
    shown = turn is not None and REASONING in turn.answer and text in turn.answer
    return turn if shown else None


def _sections(
    plain: Turn, reasoned: Turn, marks: _CodedMarks, ends: tuple[str, ...]
) -> tuple[Section, Section]:
    """Return the delimiters of reasoning and of text."""
    before = marks.control.coded(plain.answer).partition(TEXT)[0]
    between, _, after = marks.after(reasoned).partition(TEXT)
    opening, closing = marks.opening(reasoned), without_end(after, marks.control, ends)
    end = between.removesuffix(before)
    if before.strip() and between.endswith(before) and end.strip():
        return Section(opening, end), Section(before, closing)
    return Section(opening, between), Section("" if before.strip() else before, closing)


def _content(plain: Turn, marks: _CodedMarks, ends: tuple[str, ...]) -> Section:
    """Return the delimiters of a text, without a preceding empty reasoning block."""
    before, _, after = marks.control.coded(plain.answer).partition(TEXT)
    _, closed, rest = before.rpartition(marks.control.coded(marks.own.closing))
    return Section(rest.lstrip() if closed else before, without_end(after, marks.control, ends))


def _section_before_call(
    template: ChatTemplate, written: Written, marks: _CodedMarks
) -> Section | None:
    """Return the delimiters of reasoning in a template that shows it only with calls."""
    turn = _reasoned(template, "", ONE) if written.one else None
    if turn is None or written.one is None:
        return None
    before = marks.control.coded(written.one.answer).partition(NAMES[0])[0]
    opening, between = marks.opening(turn), marks.after(turn).partition(NAMES[0])[0]
    if not (opening.strip() and before and between.endswith(before)):
        return None
    return Section(opening, between.removesuffix(before))


def _before_calls(written: Written) -> str:
    """Return the white space between a text and the first call after it."""
    if written.content is None:
        return ""
    _, found, after = written.content.answer.partition(TEXT)
    space = after[: len(after) - len(after.lstrip())]
    return space if found and NAMES[0] in after else ""


def without_end(text: str, control: CodedTokens, ends: tuple[str, ...]) -> str:
    """Return the closing text of a part, without the end-of-turn token."""
    decoded = control.decoded(text).rstrip()
    for end in sorted(ends, key=len, reverse=True):
        if end and decoded.endswith(end):
            return control.coded(decoded.removesuffix(end)).strip()
    return control.coded(decoded).strip()
