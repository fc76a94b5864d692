"""Recognizes loopback addresses."""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Return whether a host name or address always means this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_loopback_url(url: str) -> bool:
    """Return the same for the host of a URL; False if the URL is invalid."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
