"""Validates the heartbeats of engines."""

from fastapi import Request

from core.errors import InvalidRequest
from core.spec.addresses import is_loopback, is_loopback_url
from core.spec.engine_protocol import EngineReport


def refuse_loopback_of_others(report: EngineReport, request: Request) -> None:
    """Reject a loopback address from another machine: for the API it would mean its own machine."""
    if not is_loopback_url(report.url):
        return
    sender = request.client.host if request.client is not None else ""
    here, _port = request.scope["server"]
    if not is_loopback(sender) and sender != here:
        raise InvalidRequest(
            f"{report.url} is a loopback address, but the engine runs on another machine. Set the "
            "engine's TUNESMITH_ENGINE_URL to an address that the API can reach.",
            param="url",
            code="engine_address_unreachable",
        )
