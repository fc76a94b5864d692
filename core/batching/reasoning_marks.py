"""The reasoning marks of a chat template, and whether a prompt opens or closes reasoning.

Both rendering of rows and parsing of answers use these marks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from core.batching.template import ChatTemplate, Unrenderable
from core.batching.template_input import Message


@dataclass(frozen=True)
class ReasoningMarks:
    """The texts before and after reasoning, without surrounding white space."""

    opening: str
    closing: str

    def opened_by(self, prompt: str) -> bool:
        """Return whether the answer to a prompt begins with reasoning."""
        return prompt.rstrip().endswith(self.opening)

    def closed_by(self, prompt: str) -> bool:
        """Return whether a prompt closes the reasoning, so that the answer has none."""
        return prompt.rstrip().endswith(self.closing)

    def around(self, reasoning: str) -> str:
        """Return reasoning as a separate block before an answer."""
        return f"{self.opening}\n{reasoning}{self.end}"

    @property
    def end(self) -> str:
        """The text between reasoning that a prompt has opened and the answer."""
        return f"\n{self.closing}\n\n"

    def without_empty(self, text: str) -> str:
        """Return a text without a leading empty reasoning block, or the end of one."""
        block = rf"\A\s*(?:{re.escape(self.opening)})?\s*{re.escape(self.closing)}\s*"
        return re.sub(block, "", text)

    def opening_in(self, prompt: str) -> str:
        """Return the opening mark at the end of a prompt, with the white space after it."""
        if not self.opened_by(prompt):
            return ""
        return self.opening + prompt[len(prompt.rstrip()) :]


THINK = ReasoningMarks("<think>", "</think>")
"""The marks of most models; also used if a template shows no reasoning."""


def reasoning_marks(template: ChatTemplate, tools: Sequence[Message]) -> ReasoningMarks:
    """Return the reasoning marks for a template."""
    return own_marks(template, tools) or THINK


def own_marks(template: ChatTemplate, tools: Sequence[Message] = ()) -> ReasoningMarks | None:
    """Return the marks that a template writes around reasoning; None if it shows none.

    They are detected once, by rendering known reasoning.
    """
    found: ReasoningMarks | None = template.remembered(
        tools, "reasoning marks", lambda: _find_marks(template)
    )
    return found


def _find_marks(template: ChatTemplate) -> ReasoningMarks | None:
    """Probe an answer with reasoning, then a call: some templates show reasoning only there."""
    for answer, following in ((_ANSWERING, "an_answer"), (_CALLING, "a_function")):
        try:
            text = template.render([_QUESTION, answer])
        except Unrenderable:
            continue
        before, thought, rest = text.rpartition("a_question")[2].partition("a_thought")
        after = rest.partition(following)[0]
        if thought and before.strip() and after.strip():
            control = template.source().control
            opening = control.from_last(before.rstrip().rsplit("\n", 1)[-1])
            closing = control.to_first(after.strip().split("\n", 1)[0])
            return ReasoningMarks(opening, closing)
    return None


_QUESTION = {"role": "user", "content": "a_question"}
_ANSWERING = {"role": "assistant", "content": "an_answer", "reasoning_content": "a_thought"}
_CALLING = {
    **_ANSWERING,
    "content": "",
    "tool_calls": [
        {
            "id": "call00000",
            "type": "function",
            "function": {"name": "a_function", "arguments": {"a": "b"}},
        }
    ],
}
