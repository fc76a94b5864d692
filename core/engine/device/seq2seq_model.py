"""A resident encoder-decoder: sequences that begin together are decoded together."""

# B rows of a cohort, V vocabulary

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from core.engine.device.encoder_decoder import EncoderDecoderBatch
from core.engine.device.switched_model import SwitchedModel, by_model
from core.engine.policy.request import AnySequence
from core.engine.policy.residency import Tally
from core.engine.policy.step import Chunk
from core.engine.results import Written


@dataclass
class _Cohort:
    """Sequences of one adapter that began in one step; rows in the order of `sequences`."""

    sequences: list[AnySequence]
    batch: EncoderDecoderBatch


class Seq2SeqModel(SwitchedModel):
    """An encoder-decoder and its running cohorts."""

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
        """Process one more token of each running sequence, and the sources of new sequences."""
        sequences: list[AnySequence] = []
        logits: list[Tensor] = []
        began = [chunk.sequence for chunk in chunks if chunk.start == 0]
        running = {chunk.sequence for chunk in chunks} - set(began)
        for cohort in self._still_running(running):
            model = self._activate(cohort.sequences[0]).model
            last_B1 = [[sequence.tokens[-1]] for sequence in cohort.sequences]
            logits.append(cohort.batch.decode(model, torch.tensor(last_B1, device=model.device)))
            sequences += cohort.sequences
        for group in by_model(began):
            logits.append(self._begin(group))
            sequences += group
        return Written(sequences, torch.cat(logits))

    def _begin(self, group: list[AnySequence]) -> Tensor:
        """Encode the sources of a new cohort, a shared one once; return the logits (B, V)."""
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
        """Return the cohorts with only the rows that still run; free the others."""
        for cohort in self._cohorts:
            rows = [row for row, each in enumerate(cohort.sequences) if each in running]
            if rows and len(rows) < len(cohort.sequences):
                cohort.batch.select(rows)
            cohort.sequences = [cohort.sequences[row] for row in rows]
        self._cohorts = [cohort for cohort in self._cohorts if cohort.sequences]
        return self._cohorts
