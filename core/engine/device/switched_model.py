"""A base that runs one adapter after another: classifiers and encoder-decoders.

Rows of different adapters cannot share a forward pass, so an adapter is switched on by installing
its layers, and off by restoring those of the base.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from transformers import PreTrainedModel

from core.adapters.adapted import AdaptedModel
from core.engine.device.adapter_loading import fit_head, load_on
from core.engine.policy.request import AnySequence
from core.engine.policy.residency import Residency, Tally


class SwitchedModel:
    """Owns the model and the layers of its adapters, by the hash of their archive."""

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
        """Return the model with the adapter of a sequence switched on, if it has one."""
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


def by_model(sequences: Sequence[AnySequence]) -> Iterator[list[AnySequence]]:
    """Group sequences by model and adapter."""

    def name(sequence: AnySequence) -> str:
        return sequence.request.model.adapter_sha256 or ""

    for _, group in groupby(sorted(sequences, key=name), key=name):
        yield list(group)
