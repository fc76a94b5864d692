"""A server that speaks S3's protocol on loopback, and the faults of one."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import boto3.session

os.environ.setdefault("S3_UPLOAD_PART_MIN_SIZE", "1")  # moto's, read once: small parts are quick

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

SECRET = "canary-of-the-secret-key"

logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for every request


@dataclass
class S3Server:
    """moto in a thread of this process. `fault` may answer a request in its place.

    It gets method and path and returns None, a status, or "cut": the answer ends half-way.
    """

    url: str = ""
    fault: Callable[[str, str], int | str | None] = lambda method, path: None
    requests: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """What a process needs to find this server, and no other."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @cached_property
    def client(self) -> Any:
        """A client of its own, to look behind a store."""
        session = boto3.session.Session("tester", SECRET, region_name="us-east-1")
        return session.client("s3", endpoint_url=self.url)

    def answer(
        self, moto: Callable[..., Iterable[bytes]], environ: dict[str, Any], start: Any
    ) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append(f"{method} {path}?{environ['QUERY_STRING']}")
        match self.fault(method, path):
            case None:
                return moto(environ, start)
            case "cut":
                content = b"".join(moto(environ, start))
                return [content[: len(content) // 2]]
            case status:
                code = {403: "AccessDenied", 503: "SlowDown"}[status]
                start(f"{status} {code}", [("content-type", "application/xml")])
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                return [f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()]


@contextmanager
def running_s3() -> Iterator[S3Server]:
    found = S3Server()
    moto = DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1",
        0,
        lambda environ, start: found.answer(moto, environ, start),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
