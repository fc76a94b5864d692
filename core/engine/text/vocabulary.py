"""A model's tokens, limits and end tokens, from its configuration and tokenizer; no weights."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerFast

from core.artifacts.manifest import ADAPTER_FILE, MODEL_FILE, Manifest
from core.batching.template import ChatTemplate
from core.batching.turn_format import ReasoningAt, TurnFormat
from core.batching.turn_probe import turn_format
from core.batching.turns import end_token_ids
from core.catalog.families import family_of
from core.engine.text.output_grammars import compile_call, compile_text
from core.engine.text.structured_output import (
    CompiledGrammar,
    GrammarVocabulary,
    grammar_vocabulary,
)
from core.engine.text.token_bytes import TokenBytes
from core.models.load import context_of, folder_of, load_config, load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.generation import StructuredOutputSpec, ToolCallOutput
from core.spec.objective import Task

_NOT_OF_THE_TOKENIZER = {
    "adapter_config.json",
    ADAPTER_FILE,
    "config.json",
    "generation_config.json",
    MODEL_FILE,
    "README.md",
    "loss.png",
    "metrics.csv",
    "row_losses.csv",
}


@dataclass(frozen=True)
class TokenizerHome:
    """A bundle as the source of a tokenizer; bundles with the same tokenizer are equal.

    So all adapters of a base share one tokenizer in memory, which may take 100 MB.
    """

    content: frozenset[tuple[str, str]]
    folder: Path = field(compare=False)


def tokenizer_home(folder: Path, manifest: Manifest) -> TokenizerHome:
    """Return the bundle in `folder` as the source of its tokenizer."""
    files = (file for file in manifest.files if file.path not in _NOT_OF_THE_TOKENIZER)
    return TokenizerHome(frozenset((file.path, file.sha256) for file in files), folder)


@dataclass(frozen=True)
class Vocabulary:
    """A model's tokens and limits. The tokenizer is not thread-safe; use it under its lock."""

    tokenizer: PreTrainedTokenizerFast
    lock: threading.Lock
    own_task: Task
    """The task of the base before tuning."""
    context_length: int
    """Maximum tokens of a text; in an encoder-decoder of the source and of the target each."""
    token_count: int
    """Rows of the embedding; larger ids do not exist."""
    end_of_text_ids: frozenset[int]
    """The end tokens of `generate`."""

    @cached_property
    def token_bytes(self) -> TokenBytes:
        return TokenBytes(self.tokenizer)

    @cached_property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        with self.lock:
            return self.end_of_text_ids | _end_of_turn_ids(self.tokenizer)

    def grammar(
        self,
        spec: StructuredOutputSpec,
        tools: Sequence[Mapping[str, Any]],
        reasoning: ReasoningAt = "ahead",
        format_: TurnFormat | None = None,
    ) -> CompiledGrammar:
        """Return the grammar of structured output; InvalidRequest if it cannot be enforced.

        Without a format, the output is an answer of the chat template.
        """
        grammars, format_ = self._for_grammars, format_ or self.turn_format
        if isinstance(spec, ToolCallOutput):
            return compile_call(spec, format_, tools, reasoning, grammars)
        return compile_text(spec, format_, reasoning, grammars)

    @cached_property
    def turn_format(self) -> TurnFormat:
        """The format of reasoning, text and tool calls in the chat template."""
        with self.lock:
            return turn_format(self.tokenizer)

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode tokens to text, with control tokens by name."""
        own = b"".join(map(self.token_bytes.decoded_bytes, tokens))
        return own.decode("utf-8", errors="replace")

    @cached_property
    def _for_grammars(self) -> GrammarVocabulary:
        ends = self.end_token_ids
        with self.lock:
            return grammar_vocabulary(self.tokenizer, self.token_count, ends)


def read_vocabulary(base: BaseModelSpec, home: TokenizerHome | None) -> Vocabulary:
    """Read the tokenizer from `home` or the base; raises the errors of `load_config`."""
    config = load_config(base)
    source = base if home is None else BaseModelSpec(id=base.id, source=str(home.folder))
    return Vocabulary(
        tokenizer=load_tokenizer(source),
        lock=threading.Lock(),
        own_task=family_of(config.model_type).own_task,
        context_length=context_of(config),
        token_count=config.vocab_size,
        end_of_text_ids=frozenset(_end_of_text_ids(base, config)),
    )


def _end_of_text_ids(base: BaseModelSpec, config: PreTrainedConfig) -> set[int]:
    """Return the end tokens of `generate`."""
    try:
        generation = GenerationConfig.from_pretrained(folder_of(base))
    except OSError:  # the base has none
        generation = GenerationConfig.from_model_config(config)
    named = generation.eos_token_id
    return set(named) if isinstance(named, list) else {named} - {None}


def _end_of_turn_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Return the tokenizer's end of text, and the tokens that follow answers in training.

    They differ if the chat template closes turns with another token.
    """
    ids = {tokenizer.eos_token_id} - {None}
    return ids | end_token_ids(ChatTemplate(tokenizer))
