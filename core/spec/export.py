"""Exports of tuned models: what is requested, and what a worker has written and measured."""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.precision import NumberFormat

ExportFormat = Literal["merged", "nf4", "int8", "gguf", "adapter-gguf", "vllm", "huggingface"]
ExportForm = Literal["merged", "adapter"]
"""Whether the files are those of a complete model, or of the adapter alone."""
GgufQuantization = Literal["f16", "q8_0", "q4_k_m"]
MergeInto = Literal["base", "dequantized"]
"""The weights that an adapter is merged into: those of the base as it is stored, or those with the
rounding of the quantized base that a qlora job has trained on."""
ExportStage = Literal["preparing", "scoring", "writing", "replaying", "storing", "pushing"]


class PushTarget(Spec):
    """A repository of the Hugging Face hub. Its token is stored apart, sealed."""

    repository: str
    private: bool


class ExportOptions(Spec):
    """What is written. Options that a format does not have are None."""

    format: ExportFormat
    form: ExportForm
    precision: NumberFormat | None = Field(None, description="None: as the base is stored")
    quantization: GgufQuantization | None = None
    merge_into: MergeInto = "base"
    push_to: PushTarget | None = None


class ExportRequest(Spec):
    """The input of the task: the model as it was when the export was requested."""

    model: str
    base: BaseModelSpec
    bundle: BundleRef
    options: ExportOptions


class ExportedFile(Spec):
    """A file in the archive, which is not compressed: its bytes follow `offset`."""

    path: str
    bytes: int
    offset: int


class ExportContent(Spec):
    """The stored archive."""

    key: str
    bytes: int
    sha256: str
    files: tuple[ExportedFile, ...]


class Distance(Spec):
    """How far the exported model is from the served one, on the same rows."""

    rows: int
    tokens: int = Field(description="scored tokens; for a classifier, labels of texts")
    of_parity_check: bool = Field(
        description="the rows of the model's parity check; otherwise fixed texts"
    )
    mean_nats: float = Field(description="mean difference of log-probabilities")
    max_nats: float
    mean_allowed_nats: float
    greedy_agreement: float | None = Field(
        None, description="the share of tokens at which both prefer the same one"
    )
    adapter_effect_nats: float | None = Field(
        None, description="mean distance between the served model and its base"
    )
    adapter_share: float | None = Field(
        None, description="the share of this effect in the export; 1 is all"
    )
    quantization_gap_nats: float | None = Field(
        None, description="for qlora: between the quantized model of the training and the served"
    )


class ExportReplay(Spec):
    """The result of loading an export and running rows through it.

    A marked export is kept; `reason` says what is wrong with it, or why nothing was compared.
    """

    status: Literal["passed", "marked", "unchecked"]
    reason: str | None = None
    distance: Distance | None = None


class PushResult(Spec):
    """What the hub said."""

    status: Literal["succeeded", "failed"]
    repository: str
    url: str | None = None
    commit: str | None = None
    reason: str | None = None


class ExportResult(Spec):
    """A complete export."""

    content: ExportContent
    replay: ExportReplay
    notes: tuple[str, ...] = Field((), description="what a user of the files should know")
    push: PushResult | None = None


class ExportProgress(Spec):
    """Stored while the task runs. With `built`, another attempt only has to push."""

    stage: ExportStage
    built: ExportResult | None = None
