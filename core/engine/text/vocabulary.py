"""A model's tokens, limits and ends, read from its configuration and tokenizer; no weights."""

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
from core.engine.text.output_grammars import compile_call, compile_json
from core.engine.text.structured_output import (
    CompiledGrammar,
    GrammarVocabulary,
    grammar_vocabulary,
)
from core.engine.text.token_bytes import TokenBytes
from core.models.load import context_of, load_config, load_tokenizer
from core.spec.base_model import BaseModelSpec
from core.spec.generation import AnswerFormSpec, ToolCallForm
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
    """A bundle as the source of a tokenizer; bundles with the same one are equal.

    All adapters of a base then share one tokenizer in memory, which may take 100 MB.
    """

    content: frozenset[tuple[str, str]]
    folder: Path = field(compare=False)


def tokenizer_home(folder: Path, manifest: Manifest) -> TokenizerHome:
    """Return the bundle in `folder` as the source of its tokenizer."""
    files = (file for file in manifest.files if file.path not in _NOT_OF_THE_TOKENIZER)
    return TokenizerHome(frozenset((file.path, file.sha256) for file in files), folder)


@dataclass(frozen=True)
class Vocabulary:
    """A model's tokens and limits; the tokenizer is used under its lock, it is not thread-safe."""

    tokenizer: PreTrainedTokenizerFast
    lock: threading.Lock
    own_task: Task
    """What the base does before it is tuned."""
    context_length: int
    """Tokens of a text; in an encoder-decoder of the source, and as many of the target."""
    token_count: int
    """Rows of the embedding; ids from here on do not exist."""
    end_of_text_ids: frozenset[int]
    """Where `generate` would stop."""

    @cached_property
    def token_bytes(self) -> TokenBytes:
        return TokenBytes(self.tokenizer)

    @cached_property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens that end what the model writes."""
        with self.lock:
            return self.end_of_text_ids | _end_of_turn_ids(self.tokenizer)

    def grammar(
        self,
        spec: AnswerFormSpec,
        tools: Sequence[Mapping[str, Any]],
        reasoning: ReasoningAt = "ahead",
    ) -> CompiledGrammar:
        """Return the grammar of a form of answers; InvalidRequest when it cannot be enforced."""
        grammars = self._for_grammars
        if isinstance(spec, ToolCallForm):
            return compile_call(spec, self.turn_format, tools, reasoning, grammars)
        return compile_json(spec, self.turn_format, reasoning, grammars)

    @cached_property
    def turn_format(self) -> TurnFormat:
        """How its chat template writes reasoning, text and tool calls."""
        with self.lock:
            return turn_format(self.tokenizer)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return tokens as text, control tokens by their names."""
        own = b"".join(map(self.token_bytes.decoded_bytes, tokens))
        return own.decode("utf-8", errors="replace")

    @cached_property
    def _for_grammars(self) -> GrammarVocabulary:
        ends = self.end_token_ids
        with self.lock:
            return grammar_vocabulary(self.tokenizer, self.token_count, ends)


def read_vocabulary(base: BaseModelSpec, home: TokenizerHome | None) -> Vocabulary:
    """Read the tokenizer from `home`, or from the base itself; the errors of `load_config`."""
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
    """Return the tokens at which `generate` would stop."""
    try:
        generation = GenerationConfig.from_pretrained(base.source, revision=base.revision)
    except OSError:  # the base comes without one
        generation = GenerationConfig.from_model_config(config)
    named = generation.eos_token_id
    return set(named) if isinstance(named, list) else {named} - {None}


def _end_of_turn_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Return the tokenizer's end of text, and the tokens that training puts after answers.

    They differ for a base whose chat template closes turns with a token of its own.
    """
    ids = {tokenizer.eos_token_id} - {None}
    return ids | end_token_ids(ChatTemplate(tokenizer))
