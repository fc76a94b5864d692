"""The format in which a chat template writes an answer: reasoning, text and tool calls.

All texts are coded (`core.batching.coded_tokens`). Plain Python.
"""

from dataclasses import dataclass
from typing import Literal

from core.batching.coded_tokens import CodedTokens
from core.batching.section import Section
from core.batching.tool_calls import ToolCallFormat

ReasoningAt = Literal["open", "closed", "ahead"]
"""Whether the prompt opened the reasoning, closed it, or leaves both to the model."""

PLAIN = Section("", "")


@dataclass(frozen=True)
class TurnFormat:
    """The literals that delimit the parts of an answer."""

    control: CodedTokens
    reasoning: Section | None = None
    content: Section = PLAIN
    calls: ToolCallFormat | None = None
    writes_reasoning: bool = True
    """Whether the template renders reasoning. If not, a `<think>` block in the content is parsed as
    reasoning, and structured output has none."""
    before_calls: str = ""
    """The white space that the template writes between text and calls."""

    @property
    def is_plain(self) -> bool:
        """Whether an answer consists of its text only."""
        return self.reasoning is None and self.content == PLAIN and self.calls is None

    def reasoning_after(self, prompt: str) -> ReasoningAt:
        """Return the state of the reasoning at the end of a prompt."""
        if self.reasoning is None:
            return "closed"
        end = prompt.rstrip()
        opening, closing = (
            self.control.decoded(literal).strip()
            for literal in (self.reasoning.opening, self.reasoning.closing)
        )
        if opening and end.endswith(opening):
            return "open"
        return "closed" if closing and end.endswith(closing) else "ahead"


PLAIN_TURN = TurnFormat(CodedTokens({}))
"""An answer outside a conversation."""
