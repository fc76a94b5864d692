"""External endpoints: OpenAI-compatible services of others, for evals and distillations.

Only the operator registers them, in a TOML file, so a request can never choose an address:

    [[endpoints]]
    name = "cloud"                       # models are named cloud/<their name there>
    base_url = "https://api.example.com/v1"
    api_key_file = "/run/secrets/cloud"  # or api_key = "…"
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, StringConstraints, ValidationError, model_validator

from core.spec.base import Spec
from core.spec.evals import ExternalModel
from core.spec.numbers import Integer


class BadEndpoints(ValueError):
    """A file of endpoints cannot be used; the message names the file and the fix."""


class ExternalEndpoint(Spec):
    """One endpoint. Its requests go to `<base_url>/chat/completions`, and so on."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    base_url: Annotated[
        str, StringConstraints(pattern=r"^https?://[^/?#@\s]+[^?#@\s]*$", max_length=2048)
    ]
    api_key: SecretStr | None = None
    api_key_file: Path | None = None
    at_once: Annotated[Integer, Field(ge=1, le=1024)] = 16
    """The maximum number of concurrent requests of one run."""
    timeout_seconds: float = Field(300, gt=0, description="for one answer")

    @model_validator(mode="after")
    def _refuse_two_keys(self) -> "ExternalEndpoint":
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("set api_key or api_key_file, not both")
        return self

    @model_validator(mode="after")
    def _refuse_bad_port(self) -> "ExternalEndpoint":
        try:
            _ = urlsplit(self.base_url).port
        except ValueError as error:
            raise ValueError(f"base_url: {error}") from None
        return self

    def key(self) -> str | None:
        """Return the key. A file is read each time, so that a new key needs no restart.

        Raises OSError if the file cannot be read.
        """
        if self.api_key_file is not None:
            return self.api_key_file.read_text(encoding="utf-8").strip()
        return None if self.api_key is None else self.api_key.get_secret_value()


class Endpoints:
    """The registered endpoints by name."""

    def __init__(self, endpoints: Iterable[ExternalEndpoint] = ()) -> None:
        """Raises BadEndpoints if two have the same name."""
        self._by_name: dict[str, ExternalEndpoint] = {}
        for endpoint in endpoints:
            if self._by_name.setdefault(endpoint.name, endpoint) is not endpoint:
                raise BadEndpoints(f"two endpoints have the name {endpoint.name!r}")

    @classmethod
    def load(cls, path: Path | None) -> "Endpoints":
        """Return the endpoints of a file; none without one. Raises BadEndpoints."""
        if path is None:
            return cls()
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadEndpoints(f"{path}: this file of endpoints does not exist") from None
        except ValueError as error:  # not UTF-8, or not TOML
            raise BadEndpoints(f"{path} is not TOML: {error}") from None
        tables = document.pop("endpoints", [])
        if document or not isinstance(tables, list):
            raise BadEndpoints(f"{path}: write each endpoint as a table [[endpoints]]")
        try:
            return cls(_endpoint(table) for table in tables)
        except BadEndpoints as error:
            raise BadEndpoints(f"{path}: {error}") from None

    def require_distinct(self, bases: Iterable[str]) -> None:
        """Raise BadEndpoints if one of these names of bases would name a model of an endpoint."""
        for base in bases:
            if self.find(base) is not None:
                name = base.partition("/")[0]
                raise BadEndpoints(
                    f"the base {base!r} begins with the endpoint {name!r}; rename it"
                )

    def names(self) -> list[str]:
        return list(self._by_name)

    def get(self, name: str) -> ExternalEndpoint | None:
        return self._by_name.get(name)

    def find(self, model: str) -> ExternalModel | None:
        """Return the model `<endpoint>/<model>`; None if no endpoint has that name."""
        name, _, rest = model.partition("/")
        return ExternalModel(endpoint=name, model=rest) if rest and name in self._by_name else None


def _endpoint(table: object) -> ExternalEndpoint:
    try:
        return ExternalEndpoint.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]  # the input may be a key
        field = ".".join(map(str, first["loc"])) or "endpoint"
        name = table.get("name") if isinstance(table, dict) else None
        raise BadEndpoints(f"endpoint {name!r}, {field}: {first['msg']}") from None
