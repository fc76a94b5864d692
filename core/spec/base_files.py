"""Whether the files of a base are where they are needed."""

from typing import Literal

from pydantic import Field

from core.spec.base import Spec

BaseState = Literal["present", "downloadable", "missing"]
"""`present`: its files are on the machine. `downloadable`: they are not, but it is on the Hugging
Face hub and downloads are allowed. `missing`: neither."""


class BaseFiles(Spec):
    """What one process, or all together, know about the files of a base."""

    state: BaseState
    bytes: int | None = Field(None, description="of the weights on the disk")
    license: str | None = Field(None, description="from the model card")


class DownloadRequest(Spec):
    """The payload of a `base_download` task."""

    source: str = Field(description="a Hugging Face id")
    revision: str | None
    name: str = Field(description="of the base, for messages")


class DownloadProgress(Spec):
    """How far a download is; finished files of an earlier attempt count."""

    bytes: int = Field(ge=0)
    total_bytes: int = Field(ge=0)

    @property
    def percent(self) -> int:
        return 100 * self.bytes // self.total_bytes if self.total_bytes else 100
