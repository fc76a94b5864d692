"""Prompts and texts as token ids, within the limits of the model that is asked."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.artifacts.manifest import Manifest
from core.batching.render import render_prompt
from core.batching.source_target import render_source
from core.batching.template import TemplateContext
from core.batching.tokenise import plain_prompt
from core.catalog.strategies import BOTH_SIDES, Side, virtual_tokens
from core.engine.request import ModelKey
from core.engine.vocabulary import Vocabulary
from core.errors import InvalidRequest
from core.objectives.classification import class_tokens
from core.spec.generation import ChatPrompt, GenerationRequest, Prompt, TextPrompt
from core.spec.template import merged_variables

MAX_CHARACTERS_PER_TOKEN = 64
"""Of a whole text; far above what any tokenizer reaches. Bounds the work under the lock."""

OPENING_TOKENS = 2
"""At most what the decoder of an encoder-decoder reads before the first token of its own."""

_PARAM = {"chat": "messages", "text": "prompt", "tokens": "prompt"}


@dataclass(frozen=True)
class Answerer:
    """The model that is asked: a base, or a bundle with its manifest."""

    base_id: str
    key: ModelKey
    vocabulary: Vocabulary
    manifest: Manifest | None
    cache_tokens: int | None = None
    """Places of the engine's cache, all of which one text may take; None where nothing counts."""

    @property
    def longest_prompt(self) -> int:
        """How many tokens a prompt or text may have; in a decoder the answer counts as well."""
        before_prompt: tuple[Side, ...] = ("source",) if self.key.task == "seq2seq" else BOTH_SIDES
        longest = min(self.vocabulary.context_length, self.cache_tokens or math.inf)
        return int(longest) - self._virtual_tokens(before_prompt)

    @property
    def places_before_prompt(self) -> int:
        """How many places of the cache the adapter's virtual tokens take."""
        return 0 if self.key.task == "seq2seq" else self._virtual_tokens(BOTH_SIDES)

    @property
    def longest_target(self) -> int:
        """How many tokens an encoder-decoder may write."""
        taken = OPENING_TOKENS + self._virtual_tokens(("target",))
        return self.vocabulary.context_length - taken

    def template_context(self, prompt: ChatPrompt) -> TemplateContext:
        """Return what the chat template reads: as in training, but for what the request says."""
        if self.manifest is None:
            return TemplateContext(prompt.template_kwargs)
        trained = self.manifest.chat_template_kwargs
        variables = merged_variables(trained, prompt.template_kwargs)
        return TemplateContext(variables, self.manifest.template_time)

    def _virtual_tokens(self, sides: tuple[Side, ...]) -> int:
        return 0 if self.manifest is None else virtual_tokens(self.manifest.strategy, sides)


def prompt_tokens(prompt: Prompt, model: Answerer) -> tuple[int, ...]:
    """Return a prompt as the model reads it.

    Raises InvalidRequest (`context_length_exceeded`, `invalid_token`, `empty_prompt`,
    `no_chat_template`, …).
    """
    vocabulary = model.vocabulary
    param = _PARAM[prompt.type]
    match prompt:
        case ChatPrompt():
            _refuse_a_text_too_long([prompt.messages, prompt.tools], param, model)
            tokens = _chat_tokens(prompt, model)
        case TextPrompt():
            _refuse_a_text_too_long(prompt.text, param, model)
            with vocabulary.lock:
                tokens = _plain_tokens(prompt.text, model)
        case _:
            tokens = list(prompt.tokens)
    if not tokens:
        raise InvalidRequest("The prompt is empty.", param=param, code="empty_prompt")
    require_known(tokens, param, model)
    return tuple(tokens)


def require_known(tokens: Sequence[int], param: str, model: Answerer) -> None:
    """Raise InvalidRequest `invalid_token` for a token that the model does not have."""
    for index, token in enumerate(tokens):
        if not 0 <= token < model.vocabulary.token_count:
            raise InvalidRequest(
                f"Token {token} at index {index} is outside the vocabulary of {model.base_id}, "
                f"which has ids 0 to {model.vocabulary.token_count - 1}.",
                param=param,
                code="invalid_token",
            )


def text_tokens(texts: Sequence[str], model: Answerer) -> tuple[tuple[int, ...], ...]:
    """Return texts to label as the model reads them; InvalidRequest for one it cannot read."""
    for text in texts:
        _refuse_a_text_too_long(text, "input", model)
    with model.vocabulary.lock:
        tokenised = class_tokens(model.vocabulary.tokenizer, texts)
    for index, tokens in enumerate(tokenised):
        if not tokens:
            raise InvalidRequest(
                f"Text {index} of the input is empty.", param="input", code="empty_prompt"
            )
        if len(tokens) > model.longest_prompt:
            raise InvalidRequest(
                f"{model.base_id} takes texts of {model.longest_prompt} tokens; text {index} of "
                f"the input has {len(tokens)}. Shorten it.",
                param="input",
                code="context_length_exceeded",
            )
    return tuple(tokenised)


def max_tokens(asked: GenerationRequest, prompt_tokens: int, model: Answerer) -> int:
    """Return how many tokens may follow; a prompt needs room for at least one."""
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
            f"The context of {asked.base.id} holds {longest} tokens; the prompt has "
            f"{prompt_tokens}{completion}. Shorten the prompt or ask for fewer tokens.",
            param=_PARAM[asked.prompt.type],
            code="context_length_exceeded",
        )
    return room if wanted is None else wanted


def refuse_unknown_tokens(logit_bias: Mapping[int, float], model: Answerer) -> None:
    """Raise InvalidRequest `invalid_token` for a biased token that the model does not have."""
    for token in logit_bias:
        if not 0 <= token < model.vocabulary.token_count:
            raise InvalidRequest(
                f"Token {token} in logit_bias is outside the vocabulary of {model.base_id}, which "
                f"has ids 0 to {model.vocabulary.token_count - 1}.",
                param="logit_bias",
                code="invalid_token",
            )


def _chat_tokens(prompt: ChatPrompt, model: Answerer) -> list[int]:
    tokenizer, context = model.vocabulary.tokenizer, model.template_context(prompt)
    if model.key.task == "seq2seq":
        with model.vocabulary.lock:
            return render_source(tokenizer, prompt.messages, prompt.tools, context)
    if tokenizer.chat_template is None:
        raise InvalidRequest(
            f"{model.base_id} has no chat template, so it cannot answer messages. Use "
            "/v1/completions with a plain prompt, or a model tuned on chats.",
            param="messages",
            code="no_chat_template",
        )
    with model.vocabulary.lock:
        return render_prompt(tokenizer, prompt.messages, prompt.tools, context)


def _plain_tokens(text: str, model: Answerer) -> list[int]:
    """Tokenise as training does: with the special tokens that open a text, none that closes it.

    What an encoder reads is a whole text, and keeps both.
    """
    tokenizer = model.vocabulary.tokenizer
    if model.key.task != "seq2seq":
        return plain_prompt(tokenizer, text)
    tokens: list[int] = tokenizer(text)["input_ids"]
    return tokens


def _refuse_a_text_too_long(text: Any, param: str, model: Answerer) -> None:
    """Refuse by length alone, before a template or a tokenizer works on it."""
    characters = len(text if isinstance(text, str) else json.dumps(text, ensure_ascii=False))
    context_length = model.vocabulary.context_length
    if characters > context_length * MAX_CHARACTERS_PER_TOKEN:
        raise InvalidRequest(
            f"The context of {model.base_id} holds {context_length} tokens; the prompt has "
            f"{characters} characters, which cannot fit. Shorten the prompt.",
            param=param,
            code="context_length_exceeded",
        )
