"""From conversations to token ids, with a loss mask that names exactly the assistant's tokens.

Trained is what the assistant has to produce: content, tool calls and the token that ends the
turn. A template that marks it with `{% generation %}` is believed. Any other template is asked
twice, once for the prompt of a turn and once for the conversation up to the end of that turn;
what lies between is the turn, and both must be beginnings of the whole text. A token counts as
trained when at least one of its characters does.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from core.batching.rows import InvalidRow, Row
from core.datasets.chat import parse_conversation
from core.datasets.faults import Faults
from core.datasets.formats import ChatExample, CompletionExample, Example
from core.errors import InvalidRequest

Message = Mapping[str, Any]
Span = tuple[int, int]
"""Characters `start <= i < end` of a text."""

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


def render_prompt(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], tools: Sequence[Message] = ()
) -> list[int]:
    """Return the tokens after which the assistant speaks; messages are in OpenAI's form.

    Raises InvalidRequest when the model has no chat template or the template refuses.
    """
    faults = Faults()
    with faults.bounded():
        parsed = parse_conversation([dict(message) for message in messages], faults)
    for fault in faults.found:
        raise InvalidRequest(f"{fault.message}.", param=fault.field or "messages")
    try:
        text = _Template(tokenizer).prompt(parsed, tools)
    except _Unrenderable as problem:
        raise InvalidRequest(f"Cannot render: {problem}.", param="messages") from None
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def render_example(tokenizer: PreTrainedTokenizerFast, example: Example, line: int = 1) -> Row:
    """Return one example as tokens with its mask; see `render_examples`."""
    return render_examples(tokenizer, [(line, example)])[0]


def render_examples(
    tokenizer: PreTrainedTokenizerFast, examples: Sequence[tuple[int, Example]]
) -> list[Row]:
    """Return a row per (line, example), in order; InvalidRow for the first that has no exact mask.

    The tokenizer is called once for all conversations and once for all plain texts.
    """
    template = _Template(tokenizer)
    rendered = [_rendered(template, line, example) for line, example in examples]
    chats = [text for text in rendered if not text.plain]
    plain = [text for text in rendered if text.plain]
    rows = _tokenised(tokenizer, chats) + _tokenised(tokenizer, plain)
    return sorted(rows, key=lambda row: row.line) if chats and plain else rows


@dataclass(frozen=True)
class _Rendered:
    """The text of an example, and the spans of it that are trained."""

    line: int
    text: str
    spans: tuple[Span, ...]
    plain: bool
    """Plain text gets the tokenizer's own special tokens and an end-of-text token."""


def _rendered(template: "_Template", line: int, example: Example) -> _Rendered:
    if isinstance(example, CompletionExample):
        text = example.prompt + example.completion
        return _Rendered(line, text, ((len(example.prompt), len(text)),), plain=True)
    try:
        text, spans = template.conversation(example)
    except _Unrenderable as problem:
        raise InvalidRow(line, str(problem)) from None
    return _Rendered(line, text, spans, plain=False)


class _Unrenderable(Exception):
    """The chat template cannot show these messages, or not in a way that has an exact mask."""


class _Template:
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
        raise _Unrenderable(
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
            raise _Unrenderable(
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
            raise _Unrenderable(
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
        except (TemplateError, TypeError, KeyError, IndexError, AttributeError) as problem:
            raise _Unrenderable(f"the chat template refuses the messages: {problem}") from problem
        return texts[0], spans[0] if spans else []


def _tokenised(tokenizer: PreTrainedTokenizerFast, rendered: list[_Rendered]) -> list[Row]:
    """Tokenise texts of one kind, all plain or all chat."""
    if not rendered:
        return []
    encoded = tokenizer(
        [text.text for text in rendered],
        add_special_tokens=rendered[0].plain,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [
        _row(tokenizer, text, ids, offsets)
        for text, ids, offsets in zip(
            rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True
        )
    ]


def _row(
    tokenizer: PreTrainedTokenizerFast, text: _Rendered, ids: list[int], offsets: list[Span]
) -> Row:
    if text.plain:
        ids, offsets = _without_closing_tokens(ids, offsets)
    starts = [start for start, _ in offsets]
    ends = [end for _, end in offsets]
    trained = [False] * len(ids)
    for start, end in text.spans:
        first = bisect_right(ends, start)  # the first token that reaches beyond `start`
        last = bisect_left(starts, end)  # the first token that begins at `end` or later
        trained[first:last] = [True] * (last - first)
    if text.plain:
        if tokenizer.eos_token_id is None:
            raise InvalidRow(text.line, "the tokenizer of the base model has no end-of-text token")
        ids, trained = [*ids, tokenizer.eos_token_id], [*trained, True]
    if trained:
        trained[0] = False
    return Row(text.line, tuple(ids), tuple(trained))


def _without_closing_tokens(ids: list[int], offsets: list[Span]) -> tuple[list[int], list[Span]]:
    """Drop what the tokenizer adds after a text; its tokens there stand for no characters."""
    length = len(ids)
    while length > 1 and offsets[length - 1] == (0, 0):
        length -= 1
    return ids[:length], offsets[:length]
