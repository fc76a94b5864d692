"""The input of the child that makes a model without a job, and its result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from core.spec.adapter_file import AdapterParts
from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.objective import MAX_LABELS
from core.spec.parity import ParityReference
from core.spec.training import Precision
from core.spec.tuned import TunedSpec

MOST_SOURCES = 16
"""Adapters of one soup."""


class LabelSpec(Spec):
    """The labels of an imported classifier, which PEFT's files do not have."""

    names: tuple[str, ...] = Field((), max_length=MAX_LABELS)
    multi_label: bool = False


class ImportSource(Spec):
    """An adapter of PEFT in the folder `adapter`, checked by `core.adapter_files`."""

    type: Literal["import"] = "import"
    parts: AdapterParts
    labels: LabelSpec = LabelSpec()


class SoupSource(Spec):
    """Bundles in the folders `source-0`, `source-1`, … with a weight for each."""

    type: Literal["soup"] = "soup"
    weights: tuple[float, ...]


@dataclass(frozen=True)
class MakingRequest:
    """What a model is made of and for which base, the folder of both, and the limits.

    The fields of limits are those of `core.spec.run_request.RunRequest`.
    """

    folder: Path
    base: BaseModelSpec
    source: ImportSource | SoupSource
    threads: int | None
    precision_folder: Path | None = None
    engine_busy_file: Path | None = None
    precision: Precision = "auto"

    @property
    def adapter_folder(self) -> Path:
        return self.folder / "adapter"

    def source_folder(self, index: int) -> Path:
        return self.folder / f"source-{index}"

    @property
    def bundle_folder(self) -> Path:
        return self.folder / "bundle"

    @property
    def log_file(self) -> Path:
        return self.folder / "child.log"


class MadeBundle(Spec):
    """A bundle in `bundle_folder`, packed beside it, with PEFT's figures of some rows."""

    tuned: TunedSpec
    parameters: int = Field(description="of the adapter")
    reference: ParityReference
    warnings: tuple[str, ...] = ()
