"""Settings of every kind of engine, from the environment."""

import socket
from pathlib import Path

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from core.spec.addresses import is_loopback
from core.storage.settings import StorageSettings


class EngineFaceSettings(StorageSettings):
    """Read once at start: the addresses of engine and API, their key, and where bundles are.

    Each name has the prefix TUNESMITH_ENGINE_ unless it has an alias.
    """

    model_config = SettingsConfigDict(
        env_prefix="TUNESMITH_ENGINE_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(8001, ge=1, le=65535)
    key: SecretStr | None = Field(
        None,
        description="the key between API and engine; None: no authentication, which requires a "
        "loopback address",
    )
    api_url: str = Field("http://127.0.0.1:8000", description="the API to register at")
    url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#@\s]+$",
        description="this engine's address for the API, without a trailing slash; None: host and "
        "port, with the name of this machine if the host means all its addresses",
    )
    drain_seconds: float = Field(
        30, ge=0, description="the time to finish current answers when the engine is told to stop"
    )
    cache_folder: Path = Field(description="unpacked adapter bundles, on a local disk")

    @property
    def reached_at(self) -> str:
        """This engine's address for the API."""
        if self.url is not None:
            return self.url
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @model_validator(mode="after")
    def _refuse_an_open_engine(self) -> "EngineFaceSettings":
        if self.key is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} can be reached from other machines. Set TUNESMITH_ENGINE_KEY "
                "here and for the API, or listen on 127.0.0.1."
            )
        return self
