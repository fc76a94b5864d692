"""Seals short secrets of users, such as a token for a hub, before they are stored.

The key is derived from a secret of the operator, which is not in the database. So a copy of the
database does not reveal what was sealed. Fernet: AES-128 in CBC mode with HMAC-SHA256. Its library
takes 7 MB, so a process loads it with its first secret.
"""

import base64
from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_PURPOSE = b"tunesmith: secrets of users"


def seal(text: SecretStr, operator_key: SecretStr) -> str:
    return _fernet(operator_key).encrypt(text.get_secret_value().encode()).decode()


def unseal(sealed: str, operator_key: SecretStr) -> SecretStr | None:
    """Return the text; None if it was sealed with another key."""
    from cryptography.fernet import InvalidToken

    try:
        return SecretStr(_fernet(operator_key).decrypt(sealed.encode()).decode())
    except InvalidToken:
        return None


def _fernet(operator_key: SecretStr) -> "Fernet":
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(
        operator_key.get_secret_value().encode()
    )
    return Fernet(base64.urlsafe_b64encode(key))
