"""A resident decoder with its loaded adapters."""

# T tokens of a step, E hidden size, S sequences with a sampled next token, V vocabulary

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.adapters.delta import copies_weights
from core.adapters.mixed import MixedModel
from core.adapters.segments import Segments
from core.adapters.virtual import Prefix, PrefixStates
from core.artifacts.manifest import read_manifest
from core.engine.device.adapter_loading import fit_or_unavailable, load_on
from core.engine.device.paged_step import ScoredRun, lay_out_step
from core.engine.device.sampler import scores_of
from core.engine.policy.request import AnySequence
from core.engine.policy.residency import Residency, Tally
from core.engine.policy.step import Chunk
from core.engine.results import TokenScores, Written
from core.models.block_cache import BlockCache
from core.models.heads import chunk_tokens
from core.models.output_head import output_head
from core.models.paged_attention import use_paged_attention
from core.strategies.load import load_weights

LARGEST_PREPACKED_BASE_BYTES = 2**31
"""Prepacked copies double the memory of a base on a CPU; larger bases go without them."""

MAX_REUSED = 8
"""Strategies whose layers are kept for later adapters; each takes the memory of one adapter."""


class CausalModel:
    """A decoder that runs all adapters in one batch, on one paged cache."""

    def __init__(
        self,
        model: PreTrainedModel,
        cache: BlockCache,
        adapter_folder: Callable[[str], Path],
        max_adapters: int,
        tally: Tally | None = None,
    ) -> None:
        use_paged_attention(model)
        self._model = model.eval()
        self._head = output_head(model)
        small = sum(weight.nbytes for weight in model.parameters()) <= LARGEST_PREPACKED_BASE_BYTES
        self._mixed = MixedModel(model, prepack=small)
        self._cache = cache
        self._adapter_folder = adapter_folder
        self._virtual: dict[str, PrefixStates | Tensor] = {}
        self._reusable: dict[str, AdaptedModel] = {}
        """Layers by strategy, which later adapters of that strategy reuse."""
        self._adapters: Residency[str, None] = Residency(
            max_adapters, self._load, self._unload, tally
        )

    def adapters(self) -> list[str]:
        return self._adapters.keys()

    def prepare(self, adapter: str, in_use: Collection[str]) -> None:
        self._adapters.acquire(adapter, in_use)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> Written:
        step = lay_out_step(chunks, self._cache, self._virtual)
        arguments: dict[str, Any] = {"position_ids": step.positions_1T, "paged": step.paged}
        with self._mixed.running(step.segments):
            if step.embeddings:
                embedded_1TE = self._model.get_input_embeddings()(step.tokens_1T)
                for rows, embeddings in step.embeddings:
                    embedded_1TE[0, rows] = embeddings
                arguments["inputs_embeds"] = embedded_1TE
            else:
                arguments["input_ids"] = step.tokens_1T
            output = self._model.base_model(**arguments, use_cache=False)
        states_TE = output.last_hidden_state[0]
        logits_SV = self._logits(states_TE[step.ends_S], step.ending_segments)
        return Written(
            step.ending, logits_SV, [self._scores(states_TE, run) for run in step.scored]
        )

    def _logits(self, states_SE: Tensor, segments: Segments) -> Tensor:
        with self._mixed.running(segments, together=False):
            logits_SV = self._model.get_output_embeddings()(states_SE)
        return self._head.capped(logits_SV)

    def _scores(
        self, states_TE: Tensor, run: ScoredRun
    ) -> tuple[AnySequence, int, list[TokenScores]]:
        """Score the tokens of a prompt, in chunks to bound the memory."""
        request = run.sequence.request
        alternatives = request.sampling.top_logprobs or 0
        scores: list[TokenScores] = []
        tokens_C = torch.tensor(run.next_tokens, device=states_TE.device)
        size = chunk_tokens(self._head.weight_VE)
        parts = zip(states_TE[run.rows].split(size), tokens_C.split(size), strict=True)
        for states_CE, next_C in parts:
            segments = Segments((request.model.adapter_sha256,), (len(next_C),))
            logits_CV = self._logits(states_CE, segments)
            scores += scores_of(logits_CV, next_C, [alternatives] * len(next_C))
        return run.sequence, run.first, scores

    def _load(self, sha256: str) -> None:
        adapted = self._read(sha256, self._adapter_folder(sha256))
        self._mixed.add(sha256, adapted)
        if isinstance(adapted.virtual, Prefix):
            self._virtual[sha256] = adapted.virtual.states(self._model.dtype)
        elif adapted.virtual is not None:
            self._virtual[sha256] = adapted.virtual.embeddings_PE.to(self._model.dtype)

    def _read(self, sha256: str, folder: Path) -> AdaptedModel:
        """Return an adapter; reuse the layers of an earlier one if the engine copies the weights.

        Creating layers takes four times as long as reading their weights.
        """
        with fit_or_unavailable(sha256):
            strategy = read_manifest(folder).strategy
            options = strategy.model_dump_json()
            if options in self._reusable:
                load_weights(self._reusable[options], folder)
                return self._reusable[options]
        with self._mixed.bare() as model:
            adapted = load_on(model, sha256, folder)
        if copies_weights(strategy):
            if len(self._reusable) == MAX_REUSED:
                self._reusable.pop(next(iter(self._reusable)))
            self._reusable[options] = adapted
        return adapted

    def _unload(self, sha256: str) -> None:
        self._mixed.discard(sha256)
        self._virtual.pop(sha256, None)
