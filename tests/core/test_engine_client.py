"""How the API holds its connections to engines."""

import asyncio
import socket
import sys

import aiohttp
import pytest

from core.engine_client import EngineClient
from core.spec.base_model import BaseModelSpec
from core.spec.classification import ClassificationRequest
from core.spec.engine_calls import CLASSIFY
from core.spec.engine_protocol import EngineBroke, EngineUnreachable
from tests.api.live import serve
from tests.api.scripted_engine import ScriptedEngine

BASE = BaseModelSpec(id="tiny", source="/models/tiny")


def classify(url: str) -> None:
    async def ask() -> None:
        client = EngineClient()
        try:
            request = ClassificationRequest(id="c", base=BASE, texts=("Hi",))
            await client.ask(url, CLASSIFY, request)
        finally:
            await client.close()

    asyncio.run(ask())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://[::1]:9", "http://127.0.0.1:no", "ftp://127.0.0.1"]
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
    async def options() -> list[int]:
        client = EngineClient()
        connector = client._http.connector
        assert isinstance(connector, aiohttp.TCPConnector) and connector._socket_factory is not None
        address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 9))
        with connector._socket_factory(address) as connection:
            found = [
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            ]
        await client.close()
        return found

    assert asyncio.run(options()) == [1, 5, 20_000]
