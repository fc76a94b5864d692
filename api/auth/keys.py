"""API keys: find the caller in the headers of a request."""

from pydantic import SecretStr
from starlette.datastructures import Headers

from api.auth.caller import ALL_SCOPES, Caller
from core.spec.bearer import has_key
from core.spec.ids import KeyId, ProjectId

STATIC_KEY = KeyId("static")


class StaticKey:
    """The key of the settings, with access to everything in its project."""

    def __init__(self, key: SecretStr | None, project: ProjectId) -> None:
        self._key = key
        self._caller = Caller(project, STATIC_KEY, ALL_SCOPES)

    @property
    def is_set(self) -> bool:
        """Whether clients must send a key."""
        return self._key is not None

    def caller(self, headers: Headers) -> Caller | None:
        """Return the caller of a request; None if the key is missing or wrong.

        Without a key in the settings, every request has the caller of the key.
        """
        if self._key is None or has_key(headers.get("authorization"), self._key):
            return self._caller
        return None
