"""Tuned models without a job: imported adapters, and soups of several. The tasks that make them."""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec
from core.spec.batch import BatchModel
from core.spec.ids import FileId
from core.spec.making import LabelSpec
from core.spec.parity import Parity
from core.spec.tuned import TunedSpec

MOST_FILES = 16
"""Of a folder that is uploaded file by file."""

Stage = Literal["reading", "converting", "comparing"]
"""What an attempt is doing: with the files, with the weights, or with an engine."""


class SourceFile(Spec):
    """An uploaded file: an archive, or one file of an adapter's folder."""

    id: FileId
    name: str
    blob_key: str


class ImportRequest(Spec):
    """The input of an import. `requested_model` is the name of the base in the request."""

    requested_model: str
    base: BaseModelSpec
    files: tuple[SourceFile, ...]
    labels: LabelSpec = LabelSpec()
    suffix: str | None = None


class SoupRequest(Spec):
    """The input of a soup. Models are what their names meant when it was created."""

    requested_model: str
    base: BaseModelSpec
    models: tuple[BatchModel, ...]
    weights: tuple[float, ...]
    suffix: str | None = None


class MadeModel(Spec):
    """The result: the id of the model, and how its answers compare with those of PEFT."""

    model: str
    tuned: TunedSpec
    parameters: int = Field(description="of the adapter")
    parity: Parity
    warnings: tuple[str, ...] = ()


class MakingProgress(Spec):
    """Where the attempts are. `bundle_key` is a blob that no row names before `made` is set."""

    stage: Stage
    bundle_key: str | None = None
    made: MadeModel | None = None
