"""From examples to the two token sequences of an encoder-decoder: what it reads and what it writes.

Without a chat template, which few of these models have, a conversation is one question and its
answer: the encoder reads the system text and the question as plain text. With one, the encoder
reads the rendered conversation up to an answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from core.batching.render import conversation_of_request
from core.batching.rows import InvalidRow, SourceTargetRow
from core.batching.template import ChatTemplate, Message, Unrenderable
from core.datasets.formats import ChatExample, CompletionExample
from core.datasets.tools import without_nulls
from core.errors import InvalidRequest


def render_source(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], tools: Sequence[Message] = ()
) -> list[int]:
    """Return what the encoder reads before it answers a conversation in OpenAI's form.

    Raises InvalidRequest when the conversation does not fit the model.
    """
    parsed = conversation_of_request(messages)
    tools = without_nulls([*tools])
    templated = bool(tokenizer.chat_template)
    try:
        text = (
            ChatTemplate(tokenizer).prompt(parsed, tools)
            if templated
            else _plain_source(parsed, tools)
        )
    except Unrenderable as problem:
        raise InvalidRequest(f"Cannot render: {problem}.", param="messages") from None
    return tokenizer(text, add_special_tokens=not templated)["input_ids"]


def render_source_targets(
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[tuple[int, ChatExample | CompletionExample]],
) -> list[SourceTargetRow]:
    """Return the rows of every (line, example), in order: one for each trained answer.

    Plain texts get the tokenizer's own special tokens, and every target ends with its end-of-text
    token. Raises InvalidRow for the first example that has no source and target.
    """
    template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
    texts = [text for line, example in examples for text in _texts(template, line, example)]
    chats = [text for text in texts if not text.plain]
    plain = [text for text in texts if text.plain]
    rows = _tokenised(tokenizer, chats) + _tokenised(tokenizer, plain)
    return sorted(rows, key=lambda row: row.line) if chats and plain else rows


@dataclass(frozen=True)
class _Texts:
    """What is read and what is written; plain text gets the tokenizer's own special tokens."""

    line: int
    source: str
    target: str
    plain: bool


def _texts(
    template: ChatTemplate | None, line: int, example: ChatExample | CompletionExample
) -> Iterator[_Texts]:
    if isinstance(example, CompletionExample):
        yield _Texts(line, example.prompt, example.completion, plain=True)
        return
    if not any(message.get("weight", 1) for message in _answers(example)):
        raise InvalidRow(line, "every answer has weight 0, so nothing would be trained")
    try:
        if template is not None:
            text, spans = template.conversation(example)
            for start, end in spans:
                yield _Texts(line, text[:start], text[start:end], plain=False)
        else:
            *question, answer = example.messages
            if answer.get("tool_calls"):
                raise Unrenderable(_NO_TEMPLATE.format("tool calls"))
            source = _plain_source(question, example.tools)
            yield _Texts(line, source, answer["content"], plain=True)
    except Unrenderable as problem:
        raise InvalidRow(line, str(problem)) from None


def _answers(example: ChatExample) -> list[Message]:
    return [message for message in example.messages if message["role"] == "assistant"]


_NO_TEMPLATE = (
    "the base model has no chat template, so {} cannot be shown to it; use one question with its "
    "answer, or a base model that was tuned for chat"
)


def _plain_source(messages: Sequence[Message], tools: Sequence[Message]) -> str:
    if tools:
        raise Unrenderable(_NO_TEMPLATE.format("tools"))
    roles = [message["role"] for message in messages]
    if roles[-1:] != ["user"] or not set(roles[:-1]) <= {"system", "developer"}:
        raise Unrenderable(_NO_TEMPLATE.format("several turns"))
    return "\n\n".join(message["content"] for message in messages)


def _tokenised(tokenizer: PreTrainedTokenizerFast, texts: list[_Texts]) -> list[SourceTargetRow]:
    """Tokenise texts of one kind, all plain or all chat."""
    if not texts:
        return []
    end = tokenizer.eos_token_id
    if end is None:
        raise InvalidRow(texts[0].line, "the tokenizer of the base model has no end-of-text token")
    sources, targets = (
        tokenizer(
            [getattr(text, side) for text in texts],
            add_special_tokens=texts[0].plain,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        for side in ("source", "target")
    )
    return [
        SourceTargetRow(
            text.line, tuple(source), tuple(target if target[-1:] == [end] else [*target, end])
        )
        for text, source, target in zip(texts, sources, targets, strict=True)
    ]
