"""Calls that are known, what a chat template makes of them, and that text ready to be read.

All texts of `ProbedAnswers` are coded (`core.batching.coded_tokens`).
"""

import re
from dataclasses import dataclass

from core.batching.call_literals import ID_HOLE, NAME_HOLE
from core.batching.coded_tokens import CodedTokens
from core.batching.probe import IDS, KEYS, NAMES, TEXT, Call, answer_with
from core.batching.section import Section
from core.batching.template import ChatTemplate
from core.batching.turns import Turn

VALUE, OTHER = "probe value", "other value"
_ARGUMENTS = {KEYS[0]: VALUE}

ONE: tuple[Call, ...] = ((NAMES[0], _ARGUMENTS),)
TWO: tuple[Call, ...] = (*ONE, (NAMES[1], {KEYS[0]: OTHER}))
BARE: tuple[Call, ...] = ((NAMES[0], {}),)
PAIR: tuple[Call, ...] = ((NAMES[0], {KEYS[0]: VALUE, KEYS[1]: OTHER}),)
TRIALS: tuple[tuple[Call, ...], ...] = (
    ((NAMES[0], {KEYS[0]: 'a "quoted"\n\ntext, (with) \\ and <b>', KEYS[1]: 3}),),
    ((NAMES[0], {KEYS[0]: "it's 5", KEYS[1]: None}),),
    ((NAMES[0], {KEYS[0]: "7", KEYS[1]: True}), (NAMES[1], {})),
    ((NAMES[0], {KEYS[0]: "größer", KEYS[1]: [1, "x", {"a": {"b": -1.5, "c": "d"}}]}),),
)


@dataclass(frozen=True)
class Written:
    """Answers with calls that a template has written; None for what it refuses."""

    one: Turn | None
    two: Turn | None
    bare: Turn | None
    pair: Turn | None
    content: Turn | None
    """A text and one call."""
    trials: tuple[tuple[tuple[Call, ...], Turn], ...]

    @staticmethod
    def by(template: ChatTemplate) -> "Written":
        one = answer_with(template, "", ONE)
        if one is None:
            return Written(None, None, None, None, None, ())
        trials = [(calls, answer_with(template, "", calls)) for calls in TRIALS]
        return Written(
            one=one,
            two=answer_with(template, "", TWO),
            bare=answer_with(template, "", BARE),
            pair=answer_with(template, "", PAIR),
            content=answer_with(template, TEXT, ONE),
            trials=tuple((calls, turn) for calls, turn in trials if turn is not None),
        )

    @property
    def turns(self) -> tuple[Turn | None, ...]:
        return (self.one, self.two, self.bare, self.pair, self.content)


class ProbedAnswers:
    """What a template has written, coded, with holes for names and ids, without its end."""

    def __init__(
        self,
        written: Written,
        control: CodedTokens,
        ends: tuple[str, ...],
        reasoning: Section | None,
    ) -> None:
        self._control = control
        self._block = empty_block(reasoning)
        self._ends = sorted(ends, key=len, reverse=True)
        kept = [(ONE, written.one), (TWO, written.two), (BARE, written.bare), (PAIR, written.pair)]
        self.all = [*((calls, turn) for calls, turn in kept if turn), *written.trials]
        self.one, self.two, self.bare, self.pair = (
            None if turn is None else self.holed(turn) for _, turn in kept
        )

    def text(self, turn: Turn) -> str:
        """Return the coded text of an answer."""
        answer = turn.answer.rstrip()
        end = next((end for end in self._ends if end and answer.endswith(end)), "")
        return self._block.sub("", self._control.coded(answer.removesuffix(end)))

    def holed(self, turn: Turn) -> str:
        text = self.text(turn)
        for name in NAMES:
            text = text.replace(name, NAME_HOLE)
        for id_ in IDS:
            text = text.replace(id_, ID_HOLE)
        return text


def empty_block(reasoning: Section | None) -> re.Pattern[str]:
    """Return a pattern for reasoning without any text, which precedes many answers."""
    if reasoning is None:
        return re.compile(r"(?!)")
    opening, closing = re.escape(reasoning.opening.strip()), re.escape(reasoning.closing.strip())
    return re.compile(rf"^\s*(?:{opening})?\s*{closing}\s*")
