"""Turns the API's requests into engine requests: tokenized prompts within all limits.

Every invalid request is rejected here, before it waits for the device. No weights are read.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from core.artifacts.manifest import Manifest, public_name, read_manifest
from core.batching.turn_format import ReasoningAt
from core.catalog.combinations import require_mergeable
from core.catalog.describe import is_stored_quantized
from core.catalog.strategies import STRATEGIES
from core.engine.adapters import AdapterFiles
from core.engine.policy.request import BaseKey, LabelsSpec, ModelKey, Request, TextsRequest
from core.engine.precisions import ServedPrecisions
from core.engine.text.embedding import embedding_tokens, require_embedder, vector_of
from core.engine.text.prompt_tokens import (
    max_tokens,
    prompt_tokens,
    refuse_unknown_tokens,
    require_known,
    text_tokens,
)
from core.engine.text.served_model import ServedModel
from core.engine.text.token_bytes import TokenBytes
from core.engine.text.turn_formats import continues_message, format_after, turn_format_of
from core.engine.text.vocabulary import TokenizerHome, Vocabulary, read_vocabulary, tokenizer_home
from core.errors import InvalidRequest
from core.models.embedder import read_embedder
from core.models.load import load_config
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.classification import ClassificationRequest
from core.spec.embedding import EmbeddingRequest
from core.spec.generation import ChatPrompt, GenerationRequest
from core.spec.objective import ClassificationSpec, Task
from core.spec.precision import NumberFormat
from core.spec.serving import ServingSpec

MAX_CACHED_VOCABULARIES = 16
MAX_CACHED_BUNDLES = 4096
_END_OF_PROMPT = 32
"""The last tokens of a prompt, which show whether it opens the reasoning."""


@dataclass(frozen=True)
class _Bundle:
    """A tuned model without its weights."""

    manifest: Manifest
    home: TokenizerHome


class PromptReader:
    """Turns the API's requests into engine requests; thread-safe.

    A tuned model uses the tokenizer and chat template of its bundle.
    """

    def __init__(
        self,
        adapters: AdapterFiles,
        cache_tokens: Callable[[BaseKey], int | None],
        require_room: Callable[[BaseKey], None] = lambda base: None,
        precisions: ServedPrecisions | None = None,
    ) -> None:
        """`require_room` raises InvalidRequest for a base that the engine can never load.

        Without `precisions`, every model runs in fp32.
        """
        self.precisions = precisions or ServedPrecisions("fp32")
        self._adapters = adapters
        self._require_room = require_room
        self._cache_tokens = lru_cache(MAX_CACHED_VOCABULARIES)(cache_tokens)
        self._bundle = lru_cache(MAX_CACHED_BUNDLES)(self._read_bundle)
        self._vocabulary = lru_cache(MAX_CACHED_VOCABULARIES)(read_vocabulary)
        self._embedder = lru_cache(MAX_CACHED_VOCABULARIES)(read_embedder)
        self._is_stored_quantized = lru_cache(MAX_CACHED_VOCABULARIES)(_is_stored_quantized)

    def is_fetched(self, base: BaseModelSpec, adapter: BundleRef | None) -> bool:
        """Return whether `fetch` has nothing to do; False if only the disk could tell."""
        return adapter is None and self.precisions.is_known(base)

    def fetch(self, base: BaseModelSpec, adapter: BundleRef | None) -> None:
        """Fetch a bundle and measure a base if needed; both may take time.

        Raises the errors of `ensure`, `load_config`, `load_tokenizer` and `load_base`.
        """
        manifest = None
        if adapter is not None:
            self._adapters.ensure(adapter)
            manifest = self._bundle(adapter.sha256).manifest
        self.precisions.prepare(base, manifest)

    def read(self, asked: GenerationRequest) -> tuple[Request, TokenBytes]:
        """Return the engine request and the bytes of its tokens.

        Raises InvalidRequest (`context_length_exceeded`, `invalid_token`, `empty_prompt`,
        `no_chat_template`, `not_a_generator`, …) and the errors of `AdapterFiles.ensure` and
        `load_config`.
        """
        model = self._model(asked.base, asked.adapter, asked.serving)
        _require_generator(asked, model)
        refuse_unknown_tokens(asked.sampling.logit_bias, model)
        prompt, sampling, given = asked.prompt, asked.sampling, asked.sampling.given_answer
        tokens = prompt_tokens(prompt, model)
        output = sampling.structured_output
        require_known(given or (), "given_answer", model)
        require_known(sampling.stop_token_ids, "stop_token_ids", model)
        is_endless = sampling.ignore_eos or given is not None
        tools = prompt.tools if isinstance(prompt, ChatPrompt) else ()
        turn = turn_format_of(prompt, model) if given is None else None
        reasoning: ReasoningAt = "closed"
        if turn is not None and not continues_message(prompt):
            reasoning = turn.reasoning_after(model.vocabulary.decode(tokens[-_END_OF_PROMPT:]))
        request = Request(
            id=asked.id,
            model=model.key,
            prompt_tokens=tokens,
            sampling=sampling,
            max_tokens=max_tokens(asked, len(tokens), model),
            end_token_ids=frozenset() if is_endless else model.vocabulary.end_token_ids,
            project=asked.project,
            is_background=asked.background,
            virtual_tokens=model.positions_before_prompt,
            grammar=None
            if output is None
            else model.vocabulary.grammar(output, tools, reasoning, format_after(prompt, model)),
            turn_format=turn,
            begins_in_reasoning=reasoning == "open",
            tools=parameters_of(tools) if tools else None,
        )
        return request, model.vocabulary.token_bytes

    def read_texts(self, asked: ClassificationRequest) -> TextsRequest:
        """Return the engine request for texts to classify.

        Raises InvalidRequest (`not_a_classifier`, `context_length_exceeded`, `empty_prompt`) and
        the errors of `AdapterFiles.ensure` and `load_config`.
        """
        model = self._model(asked.base, asked.adapter, asked.serving)
        objective = model.manifest and model.manifest.objective
        if not isinstance(objective, ClassificationSpec):
            raise InvalidRequest(
                "This model has no labels because it was not tuned for classification. "
                "Use /v1/chat/completions, or a tuned classifier.",
                param="model",
                code="not_a_classifier",
            )
        return TextsRequest(
            id=asked.id,
            model=model.key,
            texts=text_tokens(asked.texts, model),
            wanted=LabelsSpec(objective.labels, objective.multi_label),
            project=asked.project,
        )

    def read_embedding(self, asked: EmbeddingRequest) -> TextsRequest:
        """Return the engine request for texts to embed, with the pooling of their base.

        Raises InvalidRequest (`not_an_embedder`, `context_length_exceeded`, `empty_prompt`,
        `invalid_token`, `invalid_value`) and the errors of `AdapterFiles.ensure`, `load_config`
        and `read_embedder`.
        """
        embedder = require_embedder(asked.base, self._embedder(asked.base))
        # a decoder reads whole texts as a classifier does, not with the cache of a generator
        model = self._model(asked.base, asked.adapter, asked.serving, task="classification")
        return TextsRequest(
            id=asked.id,
            model=model.key,
            texts=embedding_tokens(asked.texts, embedder, model),
            wanted=vector_of(asked, embedder, model),
            project=asked.project,
            is_background=asked.background,
        )

    def tokenizing(self, base: BaseModelSpec, adapter: BundleRef | None) -> ServedModel:
        """Return a model for the use of its tokenizer; nothing is measured.

        Raises the errors of `AdapterFiles.ensure` and `load_config`.
        """
        if adapter is None:
            vocabulary = self._vocabulary(base, None)
            key = ModelKey(base, None, vocabulary.own_task)
            return ServedModel(base.id, key, vocabulary, None)
        self._adapters.ensure(adapter)
        bundle = self._bundle(adapter.sha256)
        key = ModelKey(base, adapter.sha256, bundle.manifest.task)
        return ServedModel(base.id, key, self._vocabulary(base, bundle.home), bundle.manifest)

    def key_of_base(self, base: BaseModelSpec, task: Task | None = None) -> ModelKey:
        """Return the key of a base without an adapter; None: for its own task.

        Vectors are stored and compared for years, and 16 bits make them depend on the other texts
        of their batch. So an encoder runs in fp32, unless the engine has one format for everything.
        """
        own_task = self._vocabulary(base, None).own_task
        in_fp32 = own_task == "classification" and self.precisions.asked == "auto"
        precision: NumberFormat = "fp32" if in_fp32 else self.precisions.of(base)
        return ModelKey(base, None, task or own_task, precision=precision)

    def _model(
        self,
        base: BaseModelSpec,
        adapter: BundleRef | None,
        serving: ServingSpec,
        task: Task | None = None,
    ) -> ServedModel:
        """Return the model; `task` replaces the own task of a base without an adapter."""
        if adapter is None:
            key = self.key_of_base(base, task)
            return self._served_model(base.id, key, self._vocabulary(base, None), None)
        folder = self._adapters.ensure(adapter)
        bundle = self._bundle(adapter.sha256)
        manifest = bundle.manifest
        _refuse_another_base(base, manifest)
        precision = self.precisions.of(base, manifest)
        key = ModelKey(base, adapter.sha256, manifest.task, precision=precision)
        own = {"id": f"{base.id}/{adapter.sha256[:12]}", "quantization": serving.quantization}
        if STRATEGIES[manifest.strategy.type].full_model:  # independent of its base
            full = BaseModelSpec(source=str(folder), **own)
            key = ModelKey(full, None, manifest.task, precision=precision)
        elif serving.form == "merged":
            require_mergeable(manifest.strategy.type, self._is_stored_quantized(base))
            merged = base.model_copy(update=own)
            key = ModelKey(merged, None, manifest.task, adapter.sha256, precision)
        return self._served_model(base.id, key, self._vocabulary(key.base, bundle.home), manifest)

    def _served_model(
        self, base_id: str, key: ModelKey, vocabulary: Vocabulary, manifest: Manifest | None
    ) -> ServedModel:
        self._require_room(key.base_key)
        return ServedModel(base_id, key, vocabulary, manifest, self._cache_tokens(key.base_key))

    def _read_bundle(self, sha256: str) -> _Bundle:
        folder = self._adapters.folder(sha256)
        manifest = read_manifest(folder)
        return _Bundle(manifest, tokenizer_home(folder, manifest))


def parameters_of(tools: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the parameters of tools in OpenAI's format, by name."""
    functions = [tool["function"] for tool in tools]
    return {function["name"]: function.get("parameters") for function in functions}


def _is_stored_quantized(base: BaseModelSpec) -> bool:
    return is_stored_quantized(load_config(base).to_dict())


def _refuse_another_base(base: BaseModelSpec, manifest: Manifest) -> None:
    wanted = (manifest.base_model, manifest.base_revision, manifest.base_quantization)
    found = (public_name(base), base.revision, base.quantization)
    if wanted != found:
        raise InvalidRequest(
            f"The adapter was trained on {_described(*wanted)}, and cannot run on "
            f"{_described(*found)}.",
            param="adapter",
            code="adapter_of_another_base",
        )


def _described(name: str, revision: str | None, quantization: str | None) -> str:
    revised = "" if revision is None else f" at revision {revision}"
    return name + revised + ("" if quantization is None else f", quantized to {quantization}")


def _require_generator(asked: GenerationRequest, model: ServedModel) -> None:
    """Raise InvalidRequest if the model cannot generate, or cannot score the prompt."""
    if model.key.task == "classification":
        how = "It classifies texts: use /v1/classifications."
        if model.manifest is None:
            how = (
                "It is an encoder: use /v1/embeddings, tune it for classification, or use a "
                "generating base."
            )
        raise InvalidRequest(
            f"This model does not generate text. {how}", param="model", code="not_a_generator"
        )
    if asked.sampling.score_prompt and model.key.task == "seq2seq":
        raise InvalidRequest(
            "An encoder-decoder cannot score its prompt. Set echo to false.",
            param="echo",
            code="unsupported_parameter",
        )
