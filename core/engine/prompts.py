"""From what the API sends to what the engine runs: prompts as tokens, limits checked.

Everything that can be refused is refused here, before a request waits for the device. No
weights are read.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from transformers import GenerationConfig, PreTrainedTokenizerFast

from core.batching.render import render_example, render_prompt
from core.batching.rows import InvalidRow
from core.datasets.formats import ChatExample
from core.engine.adapters import AdapterFiles
from core.engine.request import ModelKey, Request
from core.engine.token_bytes import TokenBytes
from core.errors import InvalidRequest, NotFound
from core.models.load import load_config, load_tokenizer
from core.spec.generation import ChatPrompt, GenerationRequest, Prompt, TextPrompt
from core.spec.run import BaseModelSpec

logger = logging.getLogger(__name__)

MAX_CACHED_VOCABULARIES = 64

_PARAM = {"chat": "messages", "text": "prompt", "tokens": "prompt"}


@dataclass(frozen=True)
class Vocabulary:
    """A model's tokens and limits; the tokenizer is used under its lock, it is not thread-safe."""

    tokenizer: PreTrainedTokenizerFast
    lock: threading.Lock
    token_bytes: TokenBytes
    context_length: int
    token_count: int
    """Rows of the embedding; ids from here on do not exist."""
    end_token_ids: frozenset[int]


class PromptReader:
    """Turns GenerationRequests into Requests; safe to use from several threads.

    A tuned model's tokenizer and chat template are those of its bundle.
    """

    def __init__(self, adapters: AdapterFiles) -> None:
        self._adapters = adapters
        self._vocabulary: Callable[[ModelKey], Vocabulary] = lru_cache(MAX_CACHED_VOCABULARIES)(
            self._read_vocabulary
        )

    def read(self, asked: GenerationRequest) -> tuple[Request, TokenBytes]:
        """Return the request and the bytes of its tokens.

        Raises InvalidRequest (`context_length_exceeded`, `invalid_token`, `empty_prompt`,
        `no_chat_template`, …) and the errors of `AdapterFiles.ensure`.
        """
        if asked.adapter is not None:
            self._adapters.ensure(asked.adapter)
        model = ModelKey(asked.base, asked.adapter.sha256 if asked.adapter else None)
        vocabulary = self._vocabulary(model)
        tokens = _tokens_of(asked.prompt, vocabulary, asked.base)
        request = Request(
            id=asked.id,
            model=model,
            prompt_tokens=tokens,
            sampling=asked.sampling,
            max_tokens=_max_tokens(asked, len(tokens), vocabulary.context_length),
            end_token_ids=vocabulary.end_token_ids,
        )
        return request, vocabulary.token_bytes

    def _read_vocabulary(self, model: ModelKey) -> Vocabulary:
        tokenizer_home = model.base
        if model.adapter_sha256 is not None:
            folder = self._adapters.folder(model.adapter_sha256)
            tokenizer_home = BaseModelSpec(id=model.base.id, source=str(folder))
        try:
            config = load_config(model.base)
            tokenizer = load_tokenizer(tokenizer_home)
        except OSError as error:
            logger.exception("The base %s cannot be read.", model.base.id)
            raise NotFound(
                f"The files of the base model {model.base.id} are not where the engine can read "
                "them; its log says where it looked.",
                param="model",
                code="base_not_found",
            ) from error
        return Vocabulary(
            tokenizer=tokenizer,
            lock=threading.Lock(),
            token_bytes=TokenBytes(tokenizer),
            context_length=config.max_position_embeddings,
            token_count=config.vocab_size,
            end_token_ids=frozenset(_end_of_text_ids(model.base) | _end_of_turn_ids(tokenizer)),
        )


def _tokens_of(prompt: Prompt, vocabulary: Vocabulary, base: BaseModelSpec) -> tuple[int, ...]:
    match prompt:
        case ChatPrompt():
            if vocabulary.tokenizer.chat_template is None:
                raise InvalidRequest(
                    f"{base.id} has no chat template, so it cannot answer messages. Use "
                    "/v1/completions with a plain prompt, or a model tuned on chats.",
                    param="messages",
                    code="no_chat_template",
                )
            with vocabulary.lock:
                tokens = render_prompt(vocabulary.tokenizer, prompt.messages, prompt.tools)
        case TextPrompt():
            with vocabulary.lock:
                tokens = _plain_tokens(vocabulary.tokenizer, prompt.text)
        case _:
            tokens = list(prompt.tokens)
    param = _PARAM[prompt.type]
    if not tokens:
        raise InvalidRequest("The prompt is empty.", param=param, code="empty_prompt")
    for index, token in enumerate(tokens):
        if not 0 <= token < vocabulary.token_count:
            raise InvalidRequest(
                f"Token {token} at index {index} is outside the vocabulary of {base.id}, which "
                f"has ids 0 to {vocabulary.token_count - 1}.",
                param=param,
                code="invalid_token",
            )
    return tuple(tokens)


def _plain_tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Tokenise as training does: with the special tokens that open a text, none that closes it."""
    tokens: list[int] = tokenizer(text)["input_ids"]
    if tokens[-1:] == [tokenizer.eos_token_id] and not text.endswith(tokenizer.eos_token):
        tokens.pop()
    return tokens


def _max_tokens(asked: GenerationRequest, prompt_tokens: int, context_length: int) -> int:
    """Return how many tokens may follow; a prompt needs room for at least one."""
    room = context_length - prompt_tokens
    wanted = asked.sampling.max_tokens
    if room < (wanted or 1):
        completion = f" and max_tokens is {wanted}" if wanted else ""
        raise InvalidRequest(
            f"The context of {asked.base.id} holds {context_length} tokens; the prompt has "
            f"{prompt_tokens}{completion}. Shorten the prompt or ask for fewer tokens.",
            param=_PARAM[asked.prompt.type],
            code="context_length_exceeded",
        )
    return wanted or room


def _end_of_text_ids(base: BaseModelSpec) -> set[int]:
    """Return what ends a text in the base's own generation config, if it comes with one."""
    try:
        named = GenerationConfig.from_pretrained(base.source, revision=base.revision).eos_token_id
    except OSError:
        return set()
    return set(named) if isinstance(named, list) else {named} - {None}


def _end_of_turn_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Return the tokenizer's end of text, and the token that training puts after an answer.

    They differ for a base whose chat template closes turns with a token of its own.
    """
    ids = {tokenizer.eos_token_id} - {None}
    messages = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    try:
        row = render_example(tokenizer, ChatExample(messages))
    except InvalidRow:  # no chat template, or one that has no place for this conversation
        return ids
    answer = [token for token, trained in zip(row.tokens, row.trained, strict=True) if trained]
    return ids | (set(answer[-1:]) & set(tokenizer.all_special_ids))
