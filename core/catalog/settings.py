"""The settings of the Hugging Face hub that other programs use as well."""

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class HubSettings(BaseSettings):
    """Where huggingface_hub keeps its files, and whether it may use the network."""

    model_config = SettingsConfigDict(populate_by_name=True)

    hub_cache: Path | None = Field(
        None,
        validation_alias=AliasChoices("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
        description="downloaded models; None: the folder `hub` of HF_HOME",
    )
    hub_home: Path | None = Field(
        None, validation_alias="HF_HOME", description="None: a folder of the user's caches"
    )
    user_caches: Path = Field(Path("~/.cache"), validation_alias="XDG_CACHE_HOME")
    hub_offline: bool = Field(
        False,
        validation_alias=AliasChoices("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
        description="whether downloads are forbidden",
    )

    @property
    def hub_folder(self) -> Path:
        """The folder of downloaded models."""
        home = self.hub_home or self.user_caches / "huggingface"
        return (self.hub_cache or home / "hub").expanduser()
