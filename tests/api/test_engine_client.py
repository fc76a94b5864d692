"""How the API holds its connections to engines."""

import asyncio
import socket
import sys

import pytest

from api.generation.engine_client import EngineBroke, EngineClient, EngineUnreachable
from core.spec.classification import ClassificationRequest
from core.spec.run import BaseModelSpec
from tests.api.live import serve
from tests.api.scripted_engine import ScriptedEngine

BASE = BaseModelSpec(id="tiny", source="/models/tiny")


def classify(url: str) -> None:
    async def ask() -> None:
        client = EngineClient()
        try:
            await client.classify(url, ClassificationRequest(id="c", base=BASE, texts=("Hi",)))
        finally:
            await client.close()

    asyncio.run(ask())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://999.999.999.999:1", "http://[:::]:1", "ftp://127.0.0.1"]
)
def test_where_nobody_can_be_is_told_from_a_broken_connection(url: str) -> None:
    with pytest.raises(EngineUnreachable):
        classify(url)
    engine = ScriptedEngine()
    engine.mood = "breaking"
    with serve(engine.app) as address, pytest.raises(EngineBroke):
        classify(address)


@pytest.mark.skipif(sys.platform != "linux", reason="the options are Linux's")
def test_the_kernel_is_asked_to_notice_a_machine_that_says_nothing() -> None:
    async def options(url: str) -> list[int]:
        client = EngineClient()
        async with client._http.stream("GET", f"{url}/healthz") as response:
            connection = response.extensions["network_stream"].get_extra_info("socket")
            found = [
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            ]
        await client.close()
        return found

    with serve(ScriptedEngine().app) as url:
        assert asyncio.run(options(url)) == [1, 5, 20_000]
