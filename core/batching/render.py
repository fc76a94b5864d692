"""Renders examples into token ids, with a loss mask of exactly the tokens of the answers.

The model is trained on an answer after exactly the token ids that the endpoint sends as the prompt
of that turn. Prompt and answer are tokenized separately, as in serving. The chat template renders
the prompt of a conversation; the tokenizer's special tokens precede a plain text prompt. Answers of
one conversation share a row if each prompt continues the tokens up to the previous answer;
otherwise each answer gets its own row.
"""

from collections.abc import Sequence
from itertools import groupby

from transformers import PreTrainedTokenizerFast

from core.batching.continuation import prompt_with_ending
from core.batching.control_tokens import ControlTokens
from core.batching.rows import InvalidRow, Row
from core.batching.template import (
    NO_CONTEXT,
    ChatTemplate,
    Message,
    TemplateContext,
    Unrenderable,
)
from core.batching.tokenization import encode, opening_tokens
from core.batching.turns import Turn, end_token_ids, trained_turns
from core.datasets.chat import parse_conversation
from core.datasets.formats import ChatExample, CompletionExample, TextExample
from core.datasets.row_errors import RowErrors
from core.errors import InvalidRequest
from core.spec.generation import PromptEnding

Rendered = ChatExample | CompletionExample | TextExample
"""The kinds of example that are rendered into tokens with a loss mask."""


def render_prompt(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    tools: Sequence[Message] = (),
    context: TemplateContext = NO_CONTEXT,
    ending: PromptEnding = "generation_prompt",
) -> list[int]:
    """Return the token ids of the prompt for messages in OpenAI's format.

    Raises InvalidRequest if the model has no chat template, or if the template rejects the
    conversation or omits a part of it.
    """
    template = ChatTemplate(tokenizer, context)
    text = prompt_of_request(template, messages, tools, ending)
    return template.source(tools).control.encode(tokenizer, [text])[0]


def prompt_of_request(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[Message],
    ending: PromptEnding = "generation_prompt",
) -> str:
    """Return the text of a request's prompt; InvalidRequest as in `render_prompt`."""
    parsed = conversation_of_request(messages)
    try:
        return prompt_with_ending(template, parsed, tools, ending)
    except Unrenderable as problem:
        param = problem.field or "messages"
        raise InvalidRequest(f"Cannot render the prompt: {problem}.", param=param) from None


def conversation_of_request(messages: Sequence[Message]) -> list[Message]:
    """Parse messages in OpenAI's format for a template; InvalidRequest for an invalid message."""
    errors = RowErrors()
    with errors.bounded():
        parsed = parse_conversation([dict(message) for message in messages], errors)
    for error in errors.found:
        raise InvalidRequest(f"{error.message}.", param=error.field or "messages")
    return list(parsed)


def render_example(tokenizer: PreTrainedTokenizerFast, example: Rendered, line: int = 1) -> Row:
    """Render an example into its only row; InvalidRow if it has no exact loss mask."""
    (row,) = render_examples(tokenizer, [(line, example)])
    return row


def render_examples(
    tokenizer: PreTrainedTokenizerFast,
    examples: Sequence[tuple[int, Rendered]],
    context: TemplateContext = NO_CONTEXT,
) -> list[Row]:
    """Return the rows of every (line, example) in order, at least one each.

    Raises InvalidRow for the first example without an exact loss mask. The tokenizer is called a
    few times for all examples of a kind together.
    """
    chats = [(line, each) for line, each in examples if isinstance(each, ChatExample)]
    completions = [(line, each) for line, each in examples if isinstance(each, CompletionExample)]
    texts = [(line, each) for line, each in examples if isinstance(each, TextExample)]
    rows = [
        *_chat_rows(ChatTemplate(tokenizer, context), chats),
        *_completion_rows(tokenizer, completions),
        *_text_rows(tokenizer, texts),
    ]
    kinds = sum(map(bool, (chats, completions, texts)))
    return sorted(rows, key=lambda row: row.line) if kinds > 1 else rows


def chat_turns(template: ChatTemplate, line: int, example: ChatExample) -> list[Turn]:
    """Return the trained turns of an example; InvalidRow if the template cannot render one."""
    try:
        return trained_turns(template, example)
    except Unrenderable as problem:
        raise InvalidRow(line, str(problem)) from None


def _chat_rows(template: ChatTemplate, examples: Sequence[tuple[int, ChatExample]]) -> list[Row]:
    rows: list[Row] = []
    for with_tools, group in groupby(examples, lambda each: bool(each[1].tools)):
        some = list(group)
        turns = [(line, turn) for line, each in some for turn in chat_turns(template, line, each)]
        if not turns:
            rows += [Row(line, (0,), (False,)) for line, _ in some]
            continue
        control = template.source(some[0][1].tools if with_tools else ()).control
        prompts = control.encode(template.tokenizer, [turn.prompt for _, turn in turns])
        answers = control.encode(
            template.tokenizer, [turn.answer for _, turn in turns], continued=True
        )
        rows += _joined([line for line, _ in turns], prompts, answers)
    return rows


def _joined(
    lines: Sequence[int], prompts: Sequence[list[int]], answers: Sequence[list[int]]
) -> list[Row]:
    """Return rows of prompt and answer; turns of a line that continue a row are appended to it."""
    rows: list[Row] = []
    line, tokens, trained = 0, list[int](), list[bool]()

    def close() -> None:
        if tokens:
            trained[0] = False  # no token precedes it to predict it
            rows.append(Row(line, tuple(tokens), tuple(trained)))

    for next_line, prompt, answer in zip(lines, prompts, answers, strict=True):
        if next_line != line or prompt[: len(tokens)] != tokens:
            close()
            line, tokens, trained = next_line, [], []
        trained += [False] * (len(prompt) - len(tokens)) + [True] * len(answer)
        tokens = [*prompt, *answer]
    close()
    return rows


def _completion_rows(
    tokenizer: PreTrainedTokenizerFast, examples: Sequence[tuple[int, CompletionExample]]
) -> list[Row]:
    opening = list(opening_tokens(tokenizer))
    prompts = encode(tokenizer, [example.prompt for _, example in examples])
    # End tokens inside a completion are plain text; one at its end is the end of the text.
    ends = ControlTokens.of_ids(tokenizer, _end_ids(tokenizer))
    texts = [example.completion.removesuffix(tokenizer.eos_token or "") for _, example in examples]
    completions = ends.encode(tokenizer, ends.hide(texts), continued=True)
    return [
        row
        for (line, _), prompt, completion in zip(examples, prompts, completions, strict=True)
        for row in _joined([line], [[*opening, *prompt]], [[*completion, _end(tokenizer, line)]])
    ]


def _end_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Return the tokens at which the engine stops generation."""
    turns = end_token_ids(ChatTemplate(tokenizer)) if tokenizer.chat_template else set()
    return turns | ({tokenizer.eos_token_id} - {None})


def _text_rows(
    tokenizer: PreTrainedTokenizerFast, examples: Sequence[tuple[int, TextExample]]
) -> list[Row]:
    opening = list(opening_tokens(tokenizer))
    texts = encode(tokenizer, [example.text for _, example in examples])
    return [
        row
        for (line, _), text in zip(examples, texts, strict=True)
        for row in _joined([line], [opening], [[*text, _end(tokenizer, line)]])
    ]


def _end(tokenizer: PreTrainedTokenizerFast, line: int) -> int:
    end: int | None = tokenizer.eos_token_id
    if end is None:
        raise InvalidRow(line, "the tokenizer of the base model has no end-of-text token")
    return end
