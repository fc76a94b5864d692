"""Which addresses only this machine can reach."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Say whether a name or an address can only mean this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback_url(url: str) -> bool:
    """Say the same of the host of a URL; of one that cannot be read it is not so."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
