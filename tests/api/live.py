"""Real servers on free loopback ports, in threads of the test process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from api.app import create_app
from api.app_state import AppState
from api.settings import ApiSettings
from core.records.database import Database
from core.records.engines import engine_seen
from core.records.tables import RegisteredEngine
from core.spec.engine_protocol import EngineReport
from worker.engine_face.server import KEEP_ALIVE_SECONDS


@contextmanager
def serve(app: Any) -> Iterator[str]:
    """Run an ASGI application for the length of the block and yield its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@dataclass(frozen=True)
class Api:
    """A running API and what is behind it."""

    url: str
    state: AppState
    app: Any
    folder: Path

    @property
    def database(self) -> Database:
        return self.state.database


def settings_for(folder: Path, database_url: str, **changes: Any) -> ApiSettings:
    values = {
        "database_url": database_url,
        "broker_url": f"folder://{folder}/broker",
        "storage_folder": folder / "storage",
        "hub_cache": folder / "hub",
    }
    return ApiSettings(**(values | changes))


@contextmanager
def running_api(
    folder: Path, database_url: str, *engine_urls: str, **changes: Any
) -> Iterator[Api]:
    """Run the API on a migrated database, with blobs and messages in `folder`."""
    app = create_app(settings_for(folder, database_url, **changes))
    with serve(app) as url:
        api = Api(url, app.state.tunesmith, app, folder)
        for engine_url in engine_urls:
            register(api, engine_url)
        yield api


def register(api: Api, engine_url: str, **report: Any) -> None:
    """Report for an engine, once for the length of any test."""
    with api.database.writing() as session:
        engine_seen(session, EngineReport(url=engine_url, **report))
        row = session.get_one(RegisteredEngine, engine_url)
        row.seen_at += 3600
