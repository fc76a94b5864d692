"""The error for what an import refuses."""

from core.errors import InvalidRequest


class RefusedAdapter(InvalidRequest):
    """The file, or the adapter in it, is refused; the message says why and what to do."""

    code = "adapter_refused"


def shown(name: str) -> str:
    """Return a name of the archive as it may be printed: short, and without control characters."""
    return ascii(name if len(name) <= 80 else f"{name[:77]}...")
