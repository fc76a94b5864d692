"""A reference to a trained bundle in storage."""

from core.spec.base import Spec


class BundleRef(Spec):
    """A bundle archive in storage, with its expected hash."""

    key: str
    sha256: str
