"""Whether the files of a base are where they are needed."""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec

BaseState = Literal["present", "downloadable", "missing"]
"""`present`: its files are on the machine. `downloadable`: they are not, but it is on the Hugging
Face hub and downloads are allowed. `missing`: neither."""


class BaseFiles(Spec):
    """What one process, or all together, know about the files of a base."""

    state: BaseState
    bytes: int | None = Field(None, description="of the weights on the disk")
    license: str | None = Field(None, description="from the model card")


class BaseSource(Spec):
    """The files of a base, for which workers and engines look, and which a task downloads."""

    source: str = Field(description="absolute folder as the API knows it, or a Hugging Face id")
    revision: str = Field("", description="empty for the default branch, and for a folder")

    @classmethod
    def of(cls, base: BaseModelSpec) -> "BaseSource":
        return cls(source=base.source, revision=base.revision or "")


class NamedSource(Spec):
    """The files of a base with its id, or that of one of the bases that share them."""

    id: str
    files: BaseSource

    @classmethod
    def of(cls, base: BaseModelSpec) -> "NamedSource":
        return cls(id=base.id, files=BaseSource.of(base))

    @property
    def spec(self) -> BaseModelSpec:
        """The base, with the folder of a shipped one in this installation."""
        return BaseModelSpec(
            id=self.id, source=self.files.source, revision=self.files.revision or None
        )


class DownloadProgress(Spec):
    """How far a download is; finished files of an earlier attempt count."""

    bytes: int = Field(ge=0)
    total_bytes: int = Field(ge=0)

    @property
    def percent(self) -> int:
        return 100 * self.bytes // self.total_bytes if self.total_bytes else 100
