"""The chat template of a tokenizer: the text of a conversation, and which parts of it are trained.

Trained is what the assistant has to produce: content, tool calls and the token that ends the
turn. A template that marks it with `{% generation %}` is believed. Any other template is asked
twice, once for the prompt of a turn and once for the conversation up to the end of that turn;
what lies between is the turn, and both must be beginnings of the whole text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from core.datasets.formats import ChatExample

Message = Mapping[str, Any]
Span = tuple[int, int]
"""Characters `start <= i < end` of a text."""

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")

_FAILURES = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What the code in a template can raise on messages that it was not written for."""


class Unrenderable(Exception):
    """The chat template cannot show these messages, or not in a way that has an exact mask."""


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._special_tokens = tokenizer.special_tokens_map
        self._end_tokens = tuple(tokenizer.all_special_tokens)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Message]) -> str:
        """Return the text after which the assistant speaks."""
        return self._render(messages, tools, add_generation_prompt=True)[0]

    def conversation(self, example: ChatExample) -> tuple[str, tuple[Span, ...]]:
        """Return the whole text and the spans of it that are trained."""
        messages: list[Message] = [
            {key: value for key, value in message.items() if key != "weight"}
            for message in example.messages
        ]
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        trained = [i for i in turns if example.messages[i].get("weight", 1)]
        tools = example.tools
        if not _GENERATION_MARK.search(self._source(tools)):
            text, _ = self._render(messages, tools)
            return text, tuple(self._turn_span(text, messages, tools, turn) for turn in trained)
        text, spans = self._render(messages, tools, return_assistant_tokens_mask=True)
        if len(spans) == len(turns):
            return text, tuple(spans[turns.index(turn)] for turn in trained)
        if trained == turns:
            return text, tuple(spans)
        raise Unrenderable(
            f"the chat template marks {len(spans)} generated parts in {len(turns)} assistant "
            "messages, so messages with weight 0 cannot be told from the others"
        )

    def _turn_span(
        self, text: str, messages: list[Message], tools: Sequence[Message], turn: int
    ) -> Span:
        """Return where the assistant's message number `turn` stands in `text`."""
        before = self.prompt(messages[:turn], tools)
        last = turn == len(messages) - 1
        until = text if last else self._render(messages[: turn + 1], tools)[0]
        if not (text.startswith(until) and until.startswith(before)):
            raise Unrenderable(
                f"the chat template writes messages[{turn}] otherwise in the whole conversation "
                "than at its own turn, so it has no exact loss mask; end the row with this "
                "message or give it weight 0"
            )
        return len(before), self._end_of_turn(until, len(before))

    def _end_of_turn(self, text: str, start: int) -> int:
        """Leave out the white space that a template writes after its end-of-turn token."""
        stripped = text.rstrip()
        ends = len(stripped) > start and stripped.endswith(self._end_tokens)
        return len(stripped) if ends else len(text)

    def _source(self, tools: Sequence[Message]) -> str:
        if not self._tokenizer.chat_template:
            raise Unrenderable(
                "the base model has no chat template; use prompt and completion instead of "
                "messages, or a base model that was tuned for chat"
            )
        source: str = self._tokenizer.get_chat_template(None, tools or None)
        return source

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Message], **options: bool
    ) -> tuple[str, list[Span]]:
        source = self._source(tools)
        try:
            texts, spans = render_jinja_template(
                conversations=[messages],
                tools=list(tools) or None,
                chat_template=source,
                **options,
                **self._special_tokens,
            )
        except _FAILURES as problem:
            raise Unrenderable(f"the chat template refuses the messages: {problem}") from problem
        return texts[0], spans[0] if spans else []
