"""Where a worker finds an engine."""

from dataclasses import dataclass

from pydantic import SecretStr

from worker.settings import WorkerSettings


@dataclass(frozen=True)
class EngineAddress:
    url: str
    key: SecretStr | None = None


def find_engine(settings: WorkerSettings) -> EngineAddress | None:
    """Return where to ask; None when no engine is known."""
    if settings.engine_url is None:
        return None
    return EngineAddress(settings.engine_url, settings.engine_key)
