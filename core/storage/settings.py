"""The storage settings, shared by API, worker, housekeeping and engine."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.storage.open import storage_location


class StorageSettings(BaseSettings):
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
    def _require_one_location(self) -> Self:
        storage_location(self.storage_folder, self.storage_url)
        return self
