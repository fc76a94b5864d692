"""Prompts and texts as token ids, within the limits of the requested model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from core.batching.render import render_prompt
from core.batching.source_target import render_source
from core.batching.tokenization import plain_prompt
from core.engine.text.served_model import ServedModel
from core.errors import InvalidRequest
from core.objectives.classification import class_tokens
from core.spec.generation import ChatPrompt, GenerationRequest, Prompt, TextPrompt, TokenPrompt

MAX_CHARACTERS_PER_TOKEN = 64
"""On average over a text; far above that of any tokenizer. Bounds the work under the lock."""

_PARAM = {"chat": "messages", "text": "prompt", "tokens": "prompt"}


def prompt_tokens(prompt: Prompt, model: ServedModel) -> tuple[int, ...]:
    """Return the token ids of a prompt.

    Raises InvalidRequest (`context_length_exceeded`, `invalid_token`, `empty_prompt`,
    `no_chat_template`, …).
    """
    vocabulary = model.vocabulary
    param = _PARAM[prompt.type]
    match prompt:
        case ChatPrompt():
            refuse_a_text_too_long([prompt.messages, prompt.tools], param, model)
            tokens = _chat_tokens(prompt, model)
        case TextPrompt():
            refuse_a_text_too_long(prompt.text, param, model)
            with vocabulary.lock:
                tokens = _plain_tokens(prompt.text, model)
        case TokenPrompt():
            tokens = list(prompt.tokens)
        case _:
            assert_never(prompt)
    if not tokens:
        raise InvalidRequest("The prompt is empty.", param=param, code="empty_prompt")
    require_known(tokens, param, model)
    return tuple(tokens)


def require_known(tokens: Sequence[int], param: str, model: ServedModel, hint: str = "") -> None:
    """Raise InvalidRequest `invalid_token` for a token outside the vocabulary."""
    for index, token in enumerate(tokens):
        if not 0 <= token < model.vocabulary.token_count:
            raise InvalidRequest(
                f"Token {token} at index {index} is outside the vocabulary of {model.base_id}, "
                f"which has ids 0 to {model.vocabulary.token_count - 1}.{hint}",
                param=param,
                code="invalid_token",
            )


def text_tokens(texts: Sequence[str], model: ServedModel) -> tuple[tuple[int, ...], ...]:
    """Return the token ids of whole texts; InvalidRequest for an empty or too long text."""
    for text in texts:
        refuse_a_text_too_long(text, "input", model)
    with model.vocabulary.lock:
        tokenized = class_tokens(model.vocabulary.tokenizer, texts)
    require_lengths(tokenized, model.longest_prompt, model)
    return tuple(tokenized)


def require_lengths(texts: Sequence[Sequence[int]], longest: int, model: ServedModel) -> None:
    """Raise InvalidRequest for a text without tokens, or with more than `longest`."""
    for index, tokens in enumerate(texts):
        if not tokens:
            raise InvalidRequest(
                f"Text {index} of the input is empty.", param="input", code="empty_prompt"
            )
        if len(tokens) > longest:
            raise InvalidRequest(
                f"{model.base_id} accepts texts of up to {longest} tokens; text {index} of the "
                f"input has {len(tokens)}. Shorten it.",
                param="input",
                code="context_length_exceeded",
            )


def max_tokens(asked: GenerationRequest, prompt_tokens: int, model: ServedModel) -> int:
    """Return the maximum length of the completion; at least one token must fit."""
    given = asked.sampling.given_answer
    wanted = asked.sampling.max_tokens if given is None else len(given)
    needed = 1 if wanted is None else wanted
    longest = model.longest_prompt
    if model.key.task == "seq2seq":
        room = model.longest_target
        fits = prompt_tokens <= longest and room >= needed
    else:
        room = longest - prompt_tokens
        fits = room >= needed
    if not fits:
        completion = f" and max_tokens is {wanted}" if wanted else ""
        raise InvalidRequest(
            f"The context of {asked.base.id} is {longest} tokens; the prompt has "
            f"{prompt_tokens}{completion}. Shorten the prompt or request fewer tokens.",
            param=_PARAM[asked.prompt.type],
            code="context_length_exceeded",
        )
    return room if wanted is None else wanted


def refuse_unknown_tokens(logit_bias: Mapping[int, float], model: ServedModel) -> None:
    """Raise InvalidRequest `invalid_token` for a biased token outside the vocabulary."""
    for token in logit_bias:
        if not 0 <= token < model.vocabulary.token_count:
            raise InvalidRequest(
                f"Token {token} in logit_bias is outside the vocabulary of {model.base_id}, which "
                f"has ids 0 to {model.vocabulary.token_count - 1}.",
                param="logit_bias",
                code="invalid_token",
            )


def _chat_tokens(prompt: ChatPrompt, model: ServedModel) -> list[int]:
    tokenizer, context = model.vocabulary.tokenizer, model.template_context(prompt)
    if model.key.task == "seq2seq":
        with model.vocabulary.lock:
            return render_source(tokenizer, prompt.messages, prompt.tools, context)
    if tokenizer.chat_template is None:
        raise InvalidRequest(
            f"{model.base_id} has no chat template, so it cannot answer messages. Use "
            "/v1/completions with a plain prompt, or a model tuned on conversations.",
            param="messages",
            code="no_chat_template",
        )
    with model.vocabulary.lock:
        return render_prompt(tokenizer, prompt.messages, prompt.tools, context)


def _plain_tokens(text: str, model: ServedModel) -> list[int]:
    """Tokenize as in training: with opening special tokens, without closing ones.

    The input of an encoder, or of a classifier, keeps both.
    """
    tokenizer = model.vocabulary.tokenizer
    if model.key.task == "generation":
        return plain_prompt(tokenizer, text)
    tokens: list[int] = tokenizer(text)["input_ids"]
    return tokens


def refuse_a_text_too_long(text: Any, param: str, model: ServedModel) -> None:
    """Reject a text by its length before a template or tokenizer processes it."""
    characters = len(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False))
    context_length = model.vocabulary.context_length
    if characters > context_length * MAX_CHARACTERS_PER_TOKEN:
        raise InvalidRequest(
            f"The context of {model.base_id} is {context_length} tokens; the prompt has "
            f"{characters} characters, which cannot fit. Shorten the prompt.",
            param=param,
            code="context_length_exceeded",
        )
