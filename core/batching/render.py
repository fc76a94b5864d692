"""From examples to token ids, with a loss mask that names exactly what has to be written.

A conversation goes through the chat template of the tokenizer; plain text gets the tokenizer's own
special tokens before it and an end-of-text token after it. A token counts as trained when at least
one of its characters does.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from core.batching.rows import InvalidRow, Row
from core.batching.template import ChatTemplate, Message, Span, Unrenderable
from core.datasets.chat import parse_conversation
from core.datasets.faults import Faults
from core.datasets.formats import ChatExample, CompletionExample, TextExample
from core.datasets.tools import without_nulls
from core.errors import InvalidRequest

Rendered = ChatExample | CompletionExample | TextExample
"""The kinds of example that become one sequence of tokens with a mask."""


def render_prompt(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], tools: Sequence[Message] = ()
) -> list[int]:
    """Return the tokens after which the assistant speaks; messages are in OpenAI's form.

    Raises InvalidRequest when the model has no chat template or the template refuses.
    """
    parsed = conversation_of_request(messages)
    try:
        text = ChatTemplate(tokenizer).prompt(parsed, without_nulls([*tools]))
    except Unrenderable as problem:
        raise InvalidRequest(f"Cannot render: {problem}.", param="messages") from None
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def conversation_of_request(messages: Sequence[Message]) -> list[Message]:
    """Return messages of OpenAI's form as templates expect them; InvalidRequest for a fault."""
    faults = Faults()
    with faults.bounded():
        parsed = parse_conversation([dict(message) for message in messages], faults)
    for fault in faults.found:
        raise InvalidRequest(f"{fault.message}.", param=fault.field or "messages")
    return list(parsed)


def render_example(tokenizer: PreTrainedTokenizerFast, example: Rendered, line: int = 1) -> Row:
    """Return the example as a row; InvalidRow when it has no exact mask."""
    return render_examples(tokenizer, [(line, example)])[0]


def render_examples(
    tokenizer: PreTrainedTokenizerFast, examples: Sequence[tuple[int, Rendered]]
) -> list[Row]:
    """Return a row per (line, example), in order; InvalidRow for the first that has no exact mask.

    The tokenizer is called once for all conversations and once for all plain texts.
    """
    template = ChatTemplate(tokenizer)
    texts = [_marked_text(template, line, example) for line, example in examples]
    chats = [text for text in texts if not text.plain]
    plain = [text for text in texts if text.plain]
    rows = _tokenised(tokenizer, chats) + _tokenised(tokenizer, plain)
    return sorted(rows, key=lambda row: row.line) if chats and plain else rows


@dataclass(frozen=True)
class _MarkedText:
    """The text of an example, and the spans of it that are trained."""

    line: int
    text: str
    spans: tuple[Span, ...]
    plain: bool
    """Plain text gets the tokenizer's own special tokens and an end-of-text token."""


def _marked_text(template: ChatTemplate, line: int, example: Rendered) -> _MarkedText:
    match example:
        case TextExample():
            return _MarkedText(line, example.text, ((0, len(example.text)),), plain=True)
        case CompletionExample():
            text = example.prompt + example.completion
            return _MarkedText(line, text, ((len(example.prompt), len(text)),), plain=True)
        case ChatExample():
            try:
                text, spans = template.conversation(example)
            except Unrenderable as problem:
                raise InvalidRow(line, str(problem)) from None
            return _MarkedText(line, text, spans, plain=False)


def _tokenised(tokenizer: PreTrainedTokenizerFast, rendered: list[_MarkedText]) -> list[Row]:
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
    tokenizer: PreTrainedTokenizerFast, text: _MarkedText, ids: list[int], offsets: list[Span]
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
