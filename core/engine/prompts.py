"""From what the API sends to what the engine runs: prompts as tokens, limits checked.

Everything that can be refused is refused here, before a request waits for the device. No
weights are read.
"""

import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerFast

from core.artifacts.manifest import read_manifest
from core.batching.render import render_example, render_prompt
from core.batching.rows import InvalidRow
from core.datasets.formats import ChatExample
from core.engine.adapters import AdapterFiles
from core.engine.request import ModelKey, Request
from core.engine.token_bytes import TokenBytes
from core.errors import InvalidRequest
from core.models.load import load_config, load_tokenizer
from core.spec.generation import ChatPrompt, GenerationRequest, Prompt, TextPrompt
from core.spec.run import BaseModelSpec

MAX_CACHED_VOCABULARIES = 16
MAX_CACHED_HOMES = 4096
MAX_CHARACTERS_PER_TOKEN = 64
"""Of a whole text; far above what any tokenizer reaches. Bounds the work under the lock."""

_NOT_OF_THE_TOKENIZER = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "README.md",
    "loss.png",
    "metrics.csv",
}

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


@dataclass(frozen=True)
class _TokenizerHome:
    """A bundle as the place of a tokenizer; bundles with the same one are equal.

    All adapters of a base then share one tokenizer in memory, which may take 100 MB.
    """

    content: frozenset[tuple[str, str]]
    folder: Path = field(compare=False)


class PromptReader:
    """Turns GenerationRequests into Requests; safe to use from several threads.

    A tuned model's tokenizer and chat template are those of its bundle.
    """

    def __init__(self, adapters: AdapterFiles) -> None:
        self._adapters = adapters
        self._home = lru_cache(MAX_CACHED_HOMES)(self._read_home)
        self._vocabulary = lru_cache(MAX_CACHED_VOCABULARIES)(_read_vocabulary)

    def read(self, asked: GenerationRequest) -> tuple[Request, TokenBytes]:
        """Return the request and the bytes of its tokens.

        Raises InvalidRequest (`context_length_exceeded`, `invalid_token`, `empty_prompt`,
        `no_chat_template`, …) and the errors of `AdapterFiles.ensure` and `load_config`.
        """
        model, home = ModelKey(asked.base), None
        if asked.adapter is not None:
            self._adapters.ensure(asked.adapter)
            model = ModelKey(asked.base, asked.adapter.sha256)
            home = self._home(asked.adapter.sha256)
        vocabulary = self._vocabulary(asked.base, home)
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

    def _read_home(self, sha256: str) -> _TokenizerHome:
        folder = self._adapters.folder(sha256)
        files = read_manifest(folder).files
        content = frozenset(
            (file.path, file.sha256) for file in files if file.path not in _NOT_OF_THE_TOKENIZER
        )
        return _TokenizerHome(content, folder)


def _read_vocabulary(base: BaseModelSpec, home: _TokenizerHome | None) -> Vocabulary:
    """Read the tokenizer from `home`, or from the base itself."""
    config = load_config(base)
    source = base if home is None else BaseModelSpec(id=base.id, source=str(home.folder))
    tokenizer = load_tokenizer(source)
    return Vocabulary(
        tokenizer=tokenizer,
        lock=threading.Lock(),
        token_bytes=TokenBytes(tokenizer),
        context_length=config.max_position_embeddings,
        token_count=config.vocab_size,
        end_token_ids=frozenset(_end_of_text_ids(base, config) | _end_of_turn_ids(tokenizer)),
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
            _refuse_a_text_too_long([prompt.messages, prompt.tools], "messages", vocabulary, base)
            with vocabulary.lock:
                tokens = render_prompt(vocabulary.tokenizer, prompt.messages, prompt.tools)
        case TextPrompt():
            _refuse_a_text_too_long(prompt.text, "prompt", vocabulary, base)
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


def _refuse_a_text_too_long(
    text: Any, param: str, vocabulary: Vocabulary, base: BaseModelSpec
) -> None:
    characters = _characters(text)
    if characters > vocabulary.context_length * MAX_CHARACTERS_PER_TOKEN:
        raise InvalidRequest(
            f"The context of {base.id} holds {vocabulary.context_length} tokens; the prompt has "
            f"{characters} characters, which cannot fit. Shorten the prompt.",
            param=param,
            code="context_length_exceeded",
        )


def _characters(text: Any) -> int:
    """Count the characters of all strings in a JSON value, names of fields included."""
    match text:
        case str():
            return len(text)
        case dict():
            return sum(_characters(name) + _characters(value) for name, value in text.items())
        case list() | tuple():
            return sum(map(_characters, text))
        case _:
            return 0


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


def _end_of_text_ids(base: BaseModelSpec, config: PreTrainedConfig) -> set[int]:
    """Return the tokens at which `generate` would stop."""
    try:
        generation = GenerationConfig.from_pretrained(base.source, revision=base.revision)
    except OSError:  # the base comes without one
        generation = GenerationConfig.from_model_config(config)
    named = generation.eos_token_id
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
