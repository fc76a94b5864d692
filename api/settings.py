"""Settings of the API process, from the environment."""

from pathlib import Path

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from core.catalog.settings import HubSettings
from core.sandbox.settings import SandboxSettings
from core.spec.addresses import is_loopback
from core.spec.ids import ModelId
from core.storage.settings import StorageSettings

MIB = 1 << 20


class ApiSettings(StorageSettings, HubSettings, SandboxSettings):
    """Read once at startup; every name has the prefix TUNESMITH_."""

    model_config = SettingsConfigDict(
        env_prefix="TUNESMITH_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    api_key: SecretStr | None = Field(
        None, description="the clients' key; None: any key, on a loopback address only"
    )
    database_url: str = Field(description="an SQLAlchemy URL of SQLite or Postgres")
    broker_url: str = Field(description="folder:///path or redis://…")
    engine_key: SecretStr | None = Field(
        None, description="the key between engines and API; required if api_key is set"
    )
    catalog_file: Path | None = Field(None, description="further base models and aliases; TOML")
    endpoints_file: Path | None = Field(
        None, description="external endpoints that evals and distillations may ask; TOML"
    )
    project: str = Field(
        "default",
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="owns every row; part of the names of tuned models",
    )
    default_model: ModelId | None = Field(
        None, description="answers requests that name no model, or an unknown one"
    )
    max_file_bytes: int = Field(8 << 30, ge=1, description="of one upload")
    max_body_bytes: int = Field(4 * MIB, ge=1024, description="of any other request")
    response_days: float = Field(
        30, gt=0, le=36_500, description="how long the responses of /v1/responses are stored"
    )
    price_per_hour: float | None = Field(
        None, ge=0, description="of a worker's device, for estimates of jobs; in any currency"
    )
    check_memory_bytes: int = Field(512 * MIB, ge=256 * MIB, description="to check one upload")
    check_timeout_seconds: float = Field(300, gt=0, description="to check one upload")

    @property
    def response_seconds(self) -> float:
        return self.response_days * 86_400

    @model_validator(mode="after")
    def _refuse_an_open_service(self) -> "ApiSettings":
        if self.api_key is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} can be reached from other machines. Set TUNESMITH_API_KEY, "
                "or listen on 127.0.0.1."
            )
        return self
