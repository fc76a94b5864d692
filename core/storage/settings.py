"""The settings that name the storage, which API, worker, housekeeping and engine share."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.storage.open import storage_place


class StorageSettings(BaseSettings):
    """Where blobs live: the part of a process's settings that names it."""

    model_config = SettingsConfigDict(populate_by_name=True)

    storage_folder: Path | None = Field(
        None, validation_alias="TUNESMITH_STORAGE_FOLDER", description="blobs as files"
    )
    storage_url: str | None = Field(
        None,
        validation_alias="TUNESMITH_STORAGE_URL",
        description="blobs in S3 instead: s3://bucket/prefix",
    )

    @model_validator(mode="after")
    def _name_one_place(self) -> Self:
        storage_place(self.storage_folder, self.storage_url)
        return self
