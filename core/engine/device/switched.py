"""A base that runs one adapter after another: classifiers, and models with an encoder.

Their rows cannot share one sequence with rows of other adapters, so an adapter is switched on by
putting its layers in their places, and off by putting the base's own back.
"""

# B rows of a cohort, N labels, V vocabulary

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.artifacts.manifest import read_manifest
from core.batching.packing import pack
from core.batching.rows import LabelledRow
from core.catalog.families import family_of
from core.engine.device.encoder_decoder import EncoderDecoderBatch
from core.engine.device.resident import load_on
from core.engine.policy.request import AnySequence
from core.engine.policy.residency import Residency, Tally
from core.engine.policy.step import Chunk
from core.engine.results import Scored, Written
from core.models.attention import use_packed_attention
from core.objectives.classification import classify
from core.spec.objective import ClassificationSpec

SCORED_TOKENS = 8192
"""Of texts to label that go through the model at once; bounds the memory of long ones."""


class SwitchedBase:
    """Owns the model and the layers of its adapters, named by the hash of their archive."""

    def __init__(
        self,
        model: PreTrainedModel,
        adapter_folder: Callable[[str], Path],
        max_adapters: int,
        tally: Tally | None = None,
    ) -> None:
        self._plain = self._active = AdaptedModel(model.eval(), trainable={}, config=None)
        self._adapters: Residency[str, AdaptedModel] = Residency(
            max_adapters, self._load, tally=tally
        )
        self._adapter_folder = adapter_folder

    def adapters(self) -> list[str]:
        return self._adapters.keys()

    def prepare(self, adapter: str, in_use: Collection[str]) -> None:
        self._adapters.acquire(adapter, in_use)

    def _activate(self, sequence: AnySequence) -> AdaptedModel:
        """Return the model with the adapter of a sequence switched on, or none."""
        name = sequence.request.model.adapter_sha256
        wanted = self._plain if name is None else self._adapters.acquire(name, {name})
        if wanted is not self._active:
            self._active.remove()
            wanted.install()
            self._active = wanted
        return wanted

    def _load(self, sha256: str) -> AdaptedModel:
        self._active.remove()
        self._active = self._plain
        return load_on(self._plain.model, sha256, self._adapter_folder(sha256), fit_head)


class ClassifyingBase(SwitchedBase):
    """A model with a head of labels, which each adapter brings along."""

    def __init__(
        self,
        model: PreTrainedModel,
        adapter_folder: Callable[[str], Path],
        max_adapters: int,
        tally: Tally | None = None,
    ) -> None:
        use_packed_attention(model)  # texts are read packed, as in training
        super().__init__(model, adapter_folder, max_adapters, tally)

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> Scored:
        sequences, scores = [], []
        for group in _by_model([chunk.sequence for chunk in chunks]):
            sequences += group
            scores += self._scores(self._activate(group[0]), group)
        return Scored(sequences, scores)

    def _scores(
        self, adapted: AdaptedModel, sequences: Sequence[AnySequence]
    ) -> list[tuple[float, ...]]:
        texts = [  # rows numbered by their place in the group
            LabelledRow(place, tuple(sequence.places), labels=())
            for place, sequence in enumerate(sequences)
        ]
        found: dict[int, tuple[float, ...]] = {}
        for part in pack(texts, SCORED_TOKENS):
            logits_BN = classify(adapted, [text.tokens for text in part])
            for text, logits_N in zip(part, logits_BN, strict=True):
                multi_label = sequences[text.line].request.multi_label
                scores_N = logits_N.sigmoid() if multi_label else logits_N.softmax(dim=-1)
                found[text.line] = tuple(scores_N.tolist())
        return [found[place] for place in range(len(texts))]


@dataclass
class _Cohort:
    """Sequences of one adapter that began in the same step; rows in the order of `sequences`."""

    sequences: list[AnySequence]
    batch: EncoderDecoderBatch


class TranslatingBase(SwitchedBase):
    """An encoder-decoder: sequences that begin together are decoded together."""

    def __init__(
        self,
        model: PreTrainedModel,
        adapter_folder: Callable[[str], Path],
        max_adapters: int,
        tally: Tally | None = None,
    ) -> None:
        super().__init__(model, adapter_folder, max_adapters, tally)
        self._cohorts: list[_Cohort] = []

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk]) -> Written:
        """Read one token more of each running sequence, and the sources of new ones."""
        sequences: list[AnySequence] = []
        logits: list[Tensor] = []
        began = [chunk.sequence for chunk in chunks if chunk.start == 0]
        running = {chunk.sequence for chunk in chunks} - set(began)
        for cohort in self._still_running(running):
            model = self._activate(cohort.sequences[0]).model
            last_B1 = [[sequence.tokens[-1]] for sequence in cohort.sequences]
            logits.append(cohort.batch.decode(model, torch.tensor(last_B1, device=model.device)))
            sequences += cohort.sequences
        for group in _by_model(began):
            logits.append(self._begin(group))
            sequences += group
        return Written(sequences, torch.cat(logits))

    def _begin(self, group: list[AnySequence]) -> Tensor:
        """Read the sources of a new cohort, that of several choices once; logits (B, V)."""
        requests = list(dict.fromkeys(sequence.request for sequence in group))
        batch, logits_BV = EncoderDecoderBatch.begin(
            self._activate(group[0]), [request.prompt_tokens for request in requests]
        )
        rows = [requests.index(sequence.request) for sequence in group]
        if rows != list(range(len(requests))):
            batch.select(rows)
            logits_BV = logits_BV[rows]
        self._cohorts.append(_Cohort(group, batch))
        return logits_BV

    def _still_running(self, running: set[AnySequence]) -> list[_Cohort]:
        """Return the cohorts with the rows of those that still run; the others are freed."""
        for cohort in self._cohorts:
            rows = [row for row, each in enumerate(cohort.sequences) if each in running]
            if rows and len(rows) < len(cohort.sequences):
                cohort.batch.select(rows)
            cohort.sequences = [cohort.sequences[row] for row in rows]
        self._cohorts = [cohort for cohort in self._cohorts if cohort.sequences]
        return self._cohorts


def fit_head(model: PreTrainedModel, folder: Path) -> None:
    """Give a classifier a last layer for as many labels as the adapter in `folder` has."""
    objective = read_manifest(folder).objective
    if not isinstance(objective, ClassificationSpec):
        return
    name = family_of(model.config.model_type).head[-1]
    last = model.get_submodule(name)
    if last.out_features != len(objective.labels):
        fitting = nn.Linear(last.in_features, len(objective.labels), bias=last.bias is not None)
        model.set_submodule(name, fitting.to(last.weight.device, last.weight.dtype))


def _by_model(sequences: Sequence[AnySequence]) -> Iterator[list[AnySequence]]:
    """Group sequences by what answers them."""

    def name(sequence: AnySequence) -> str:
        return sequence.request.model.adapter_sha256 or ""

    for _, group in groupby(sorted(sequences, key=name), key=name):
        yield list(group)
