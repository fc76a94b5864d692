"""How a chat template writes an answer: its reasoning, its text and its calls.

All texts are coded (`core.batching.coded_tokens`). Plain Python.
"""

from dataclasses import dataclass
from typing import Literal

from core.batching.coded_tokens import CodedTokens
from core.batching.section import Section
from core.batching.tool_calls import ToolCallFormat

ReasoningAt = Literal["open", "closed", "ahead"]
"""Whether a prompt has opened the reasoning, has closed it, or leaves both to the model."""

PLAIN = Section("", "")


@dataclass(frozen=True)
class TurnFormat:
    """Where the parts of an answer begin and end, after its prompt."""

    control: CodedTokens
    reasoning: Section | None = None
    content: Section = PLAIN
    calls: ToolCallFormat | None = None
    writes_reasoning: bool = True
    """Whether the template itself shows reasoning. Where it does not, a block in the content is
    read as such, and structured answers have none."""
    before_calls: str = ""
    """The white space that the template writes between a text and the calls after it."""

    @property
    def is_plain(self) -> bool:
        """Whether an answer is its text and nothing else."""
        return self.reasoning is None and self.content == PLAIN and self.calls is None

    def reasoning_after(self, prompt: str) -> ReasoningAt:
        """Tell from the end of a prompt, as the model reads it, where its reasoning stands."""
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
