"""The steps of an export that need torch. Each runs in a child of its own, which then ends.

So at most one model is in memory. A step answers with its result or a `RunFailed`.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec, Quantization
from core.spec.export import ExportOptions, GgufQuantization
from core.spec.objective import Task
from core.spec.parity import ParityReference
from core.spec.precision import NumberFormat


class ScoredRow(Spec):
    """Tokens of which some are scored, those of a decoder in their context."""

    tokens: tuple[int, ...] = Field(description="of a decoder, a text to classify, or a source")
    scored: tuple[bool, ...] = Field((), description="by token, for a decoder")
    target: tuple[int, ...] = Field((), description="of an encoder-decoder; all are scored")


class RowFigures(Spec):
    """What a model says about a row."""

    logprobs: tuple[float, ...] = Field(description="of each scored token, or label, in nats")
    preferred: tuple[int, ...] = Field((), description="the likeliest tokens there, if known")


class ServedFigures(Spec):
    """Rows, and what the served model and its base say about them."""

    type: Literal["served"] = "served"
    task: Task
    multi_label: bool
    precision: NumberFormat = Field("fp32", description="of the served model's computation")
    quantization: Quantization | None = Field(
        None, description="of the base in the catalog, with which the model is served"
    )
    rounding_nats: float = Field(
        0.0, description="how far rounding alone moves the served model's figures, on average"
    )
    of_parity_check: bool
    rows: tuple[ScoredRow, ...]
    served: tuple[RowFigures, ...]
    base: tuple[RowFigures, ...] | None = Field(
        None, description="None if the base cannot be scored on these rows"
    )


class Written(Spec):
    """Files were written."""

    type: Literal["written"] = "written"
    stored_in: NumberFormat = Field("fp32", description="of dense weights")
    notes: tuple[str, ...] = ()


class ReplayedFigures(Spec):
    """What the exported model says about the rows."""

    type: Literal["replayed"] = "replayed"
    figures: tuple[RowFigures, ...]


class ServeStep(Spec):
    """Score rows with the model as it is served: the adapter on its base."""

    type: Literal["serve"] = "serve"
    base: BaseModelSpec
    bundle: Path
    options: ExportOptions
    reference: ParityReference | None


class WriteStep(Spec):
    """Write the files of a complete model, or of the adapter, into the new folder `out`."""

    type: Literal["write"] = "write"
    base: BaseModelSpec
    bundle: Path
    options: ExportOptions
    out: Path


class QuantizeStep(Spec):
    """Load a written model quantized, and write it into the new folder `out`."""

    type: Literal["quantize"] = "quantize"
    bundle: Path
    model: Path
    quantization: Literal["nf4", "int8"]
    out: Path


class GgufStep(Spec):
    """Convert a written model, or an adapter, into the new folder `out`."""

    type: Literal["gguf"] = "gguf"
    base: BaseModelSpec
    source: Path = Field(description="the written model, or the bundle of the adapter")
    quantization: GgufQuantization | None = Field(description="None: the adapter")
    llama_cpp: Path | None
    out: Path


class ReplayStep(Spec):
    """Load the written files with the library that they are for, and score the rows."""

    type: Literal["replay"] = "replay"
    base: BaseModelSpec
    bundle: Path
    folder: Path
    options: ExportOptions
    served: ServedFigures
    llama_cpp: Path | None = None


ExportStep = ServeStep | WriteStep | QuantizeStep | GgufStep | ReplayStep
StepResult = ServedFigures | Written | ReplayedFigures
