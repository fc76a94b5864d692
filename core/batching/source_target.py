"""Renders examples into the source and target tokens of an encoder-decoder.

Few of these models have a chat template. Without one, a conversation must be one question and its
answer, and the source is the system text and the question as plain text. With a template, the
source is the rendered conversation up to the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from core.batching.render import chat_turns, conversation_of_request, render_prompt
from core.batching.rows import InvalidRow, SourceTargetRow
from core.batching.template import (
    NO_CONTEXT,
    ChatTemplate,
    Message,
    TemplateContext,
    Unrenderable,
)
from core.datasets.formats import ChatExample, CompletionExample
from core.datasets.tools import without_nulls
from core.errors import InvalidRequest


def render_source(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    tools: Sequence[Message] = (),
    context: TemplateContext = NO_CONTEXT,
) -> list[int]:
    """Return the encoder's token ids for messages in OpenAI's format.

    Raises InvalidRequest if the model cannot process the conversation.
    """
    if tokenizer.chat_template:
        return render_prompt(tokenizer, messages, tools, context)
    parsed = conversation_of_request(messages)
    tools = without_nulls([*tools])
    try:
        text = _plain_source(parsed, tools)
    except Unrenderable as problem:
        raise InvalidRequest(f"Cannot render the prompt: {problem}.", param="messages") from None
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


def render_source_targets(
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[tuple[int, ChatExample | CompletionExample]],
    context: TemplateContext = NO_CONTEXT,
) -> list[SourceTargetRow]:
    """Return the rows of every (line, example) in order, one per trained answer.

    Plain texts get the tokenizer's special tokens, and every target ends with the end-of-text
    token. Raises InvalidRow for the first example without a source and target.
    """
    template = ChatTemplate(tokenizer, context) if tokenizer.chat_template else None
    rows: list[SourceTargetRow] = []
    plain: list[_Texts] = []
    for line, example in examples:
        if isinstance(example, ChatExample) and not any(map(_is_trained, example.messages)):
            raise InvalidRow(
                line, "trains nothing: every assistant message has weight 0; set one to 1"
            )
        if isinstance(example, CompletionExample):
            plain.append(_Texts(line, example.prompt, example.completion))
        elif template is None:
            plain.append(_only_turn(line, example))
        else:
            rows += _templated(template, line, example)
    rows += _tokenized(tokenizer, plain)
    return sorted(rows, key=lambda row: row.line)


@dataclass(frozen=True)
class _Texts:
    """A source and a target as plain text."""

    line: int
    source: str
    target: str


def _is_trained(message: Message) -> bool:
    return message["role"] == "assistant" and bool(message.get("weight", 1))


def _templated(template: ChatTemplate, line: int, example: ChatExample) -> list[SourceTargetRow]:
    turns = chat_turns(template, line, example)
    control = template.source(example.tools).control
    sources = control.encode(template.tokenizer, [turn.prompt for turn in turns])
    targets = control.encode(template.tokenizer, [turn.answer for turn in turns])
    return [
        SourceTargetRow(line, tuple(source), _closed(template.tokenizer, line, target))
        for source, target in zip(sources, targets, strict=True)
    ]


def _only_turn(line: int, example: ChatExample) -> _Texts:
    *question, answer = example.messages
    try:
        if answer.get("tool_calls"):
            raise Unrenderable(_NO_TEMPLATE.format("tool calls"))
        return _Texts(line, _plain_source(question, example.tools), answer["content"])
    except Unrenderable as problem:
        raise InvalidRow(line, str(problem)) from None


_NO_TEMPLATE = (
    "the base model has no chat template, so it does not support {}; use one question with its "
    "answer, or a base model tuned for chat"
)


def _plain_source(messages: Sequence[Message], tools: Sequence[Message]) -> str:
    if tools:
        raise Unrenderable(_NO_TEMPLATE.format("tools"))
    roles = [message["role"] for message in messages]
    if roles[-1:] != ["user"] or not set(roles[:-1]) <= {"system", "developer"}:
        raise Unrenderable(_NO_TEMPLATE.format("several turns"))
    return "\n\n".join(message["content"] for message in messages)


def _tokenized(tokenizer: PreTrainedTokenizerFast, texts: list[_Texts]) -> list[SourceTargetRow]:
    """Tokenize plain texts with the tokenizer's special tokens."""
    if not texts:
        return []
    sources, targets = (
        tokenizer(
            [getattr(text, side) for text in texts],
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        for side in ("source", "target")
    )
    return [
        SourceTargetRow(text.line, tuple(source), _closed(tokenizer, text.line, target))
        for text, source, target in zip(texts, sources, targets, strict=True)
    ]


def _closed(
    tokenizer: PreTrainedTokenizerFast, line: int, target: Sequence[int]
) -> tuple[int, ...]:
    """Return the target ending with the end-of-text token."""
    end = tokenizer.eos_token_id
    if end is None:
        raise InvalidRow(line, "the tokenizer of the base model has no end-of-text token")
    return tuple(target) if target[-1] == end else (*target, end)
