"""What an engine may say of itself."""

from fastapi import Request

from core.errors import InvalidRequest
from core.spec.addresses import is_loopback, is_loopback_url
from core.spec.engine_protocol import EngineReport


def refuse_loopback_of_others(report: EngineReport, request: Request) -> None:
    """Refuse a loopback address from another machine: from here it would mean this one."""
    if not is_loopback_url(report.url):
        return
    sender = request.client.host if request.client is not None else ""
    here, _port = request.scope["server"]
    if not is_loopback(sender) and sender != here:
        raise InvalidRequest(
            f"{report.url} means this machine, and the engine is on another one. Set "
            "TUNESMITH_ENGINE_URL for the engine to an address at which the API reaches it.",
            param="url",
            code="engine_address_unreachable",
        )
