"""Settings of `python -m migrations.upgrade`, from the environment."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class MigrationSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TUNESMITH_", frozen=True)

    database_url: str
