"""The guard of tests/conftest.py: no test leaves this machine."""

import socket

import httpx
import pytest

ELSEWHERE = ("192.0.2.1", 9)  # an address that belongs to nobody


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_connection_to_another_machine_is_refused(kind: socket.SocketKind) -> None:
    refusal = pytest.raises(RuntimeError, match="only loopback")
    with socket.socket(socket.AF_INET, kind) as opened, refusal:
        opened.connect(ELSEWHERE)


def test_datagram_to_another_machine_is_refused() -> None:
    refusal = pytest.raises(RuntimeError, match="only loopback")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, refusal:
        sender.sendto(b"", ELSEWHERE)


def test_name_of_another_machine_is_not_resolved() -> None:
    with pytest.raises(RuntimeError, match=r"resolve 'example\.org'"):
        httpx.get("http://example.org/")


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()
