"""docker-compose.yml, checked without an engine to start it."""

import importlib.util
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from pydantic import AliasChoices
from pydantic_settings import BaseSettings
from starlette.requests import Request
from starlette.responses import Response

from api.app import create_app
from api.settings import ApiSettings
from cli.settings import ENGINE_TUNABLES
from core.storage.open import open_store
from core.storage.settings import StorageSettings
from migrations.settings import MigrationSettings
from worker.engine.app import STOP_SECONDS
from worker.engine.settings import EngineSettings
from worker.engine_face.http import engine_application
from worker.engine_face.registration import TIMEOUT_SECONDS
from worker.engine_face.server import SHUTDOWN_SECONDS
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}

SETTINGS: dict[str, type[BaseSettings]] = {
    "api": ApiSettings,
    "migrations.upgrade": MigrationSettings,
    "worker": WorkerSettings,
    "worker.light": WorkerSettings,
    "worker.housekeeping": WorkerSettings,
    "worker.engine": EngineSettings,
}


WITH_CHECK_OF_IMAGE = ("api", "worker", "worker-gpu", "light-worker")


def module(service: dict[str, Any]) -> str:
    python, option, name = service["command"]
    assert (python, option) == ("python", "-m")
    return str(name)


def variables(settings: type[BaseSettings], *, only_required: bool = False) -> set[str]:
    """The environment variables that a settings class reads."""
    names: set[str] = set()
    for name, field in settings.model_fields.items():
        if only_required and not field.is_required():
            continue
        match field.validation_alias:
            case None:
                names.add(f"{settings.model_config['env_prefix']}{name}".upper())
            case AliasChoices(choices=choices):
                names |= {str(choice) for choice in choices}
            case alias:
                names.add(str(alias))
    return names


def volumes(service: dict[str, Any]) -> dict[str, str]:
    """Folder by volume; folders of the host are none."""
    entries = [entry.split(":") for entry in service.get("volumes", [])]
    return {entry[0]: entry[1] for entry in entries if not entry[0].startswith(".")}


def filled_in(value: str, given: Mapping[str, str] = MappingProxyType({})) -> str:
    """Fill in what .env gives; other required variables get some text, optional ones their default.

    `${NAME-default}` takes an empty value as given, `${NAME:-default}` does not.
    """

    def fill(found: re.Match[str]) -> str:
        name, colon, kind, rest = found.groups()
        if name in given and (given[name] or not colon):
            return given[name]
        return "x" * 40 if kind == "?" else rest

    return re.sub(r"\$\{(\w+)(:?)([-?])([^}]*)\}", fill, value)


def test_file_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema"]
    done = subprocess.run(
        [*command, "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_process_of_the_service_is_there() -> None:
    assert {module(service) for service in OURS.values()} == set(SETTINGS)
    assert {"postgres", "redis"} == set(SERVICES) - set(OURS)
    for name in SETTINGS:
        assert importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("name", OURS)
def test_environment_is_what_the_process_reads(name: str) -> None:
    service = OURS[name]
    settings = SETTINGS[module(service)]
    given = {key for key in service["environment"] if key.startswith("TUNESMITH_")}
    shared = {"TUNESMITH_BROKER_URL", *variables(StorageSettings)}  # in everybody's environment
    assert given - shared <= variables(settings)
    assert variables(settings, only_required=True) <= given


def test_api_accepts_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in SERVICES["api"]["environment"].items():
        monkeypatch.setenv(key, filled_in(value))
    settings = ApiSettings()
    assert (settings.host, settings.port) == ("0.0.0.0", 8000)
    assert settings.api_key is not None
    assert settings.engine_key is not None
    assert settings.catalog_file is None
    monkeypatch.delenv("TUNESMITH_API_KEY")
    with pytest.raises(ValueError, match="TUNESMITH_API_KEY"):
        ApiSettings()


def test_engine_accepts_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in SERVICES["engine"]["environment"].items():
        monkeypatch.setenv(key, filled_in(value))
    settings, api = EngineSettings(), SERVICES["api"]["environment"]
    assert (settings.host, settings.port) == ("0.0.0.0", 8001)
    assert settings.key is not None
    assert settings.key.get_secret_value() == filled_in(api["TUNESMITH_ENGINE_KEY"])
    assert settings.api_url == f"http://api:{api['TUNESMITH_PORT']}"
    # Every container has a name of its own, at which the others of its network reach it.
    assert settings.reached_at == f"http://{socket.gethostname()}:8001"


def in_s3(endpoint: str) -> dict[str, str]:
    """The lines about S3 in .env.example, uncommented and filled in."""
    lines = (ROOT / ".env.example").read_text().split("in S3")[1].splitlines()
    names = [found[1] for line in lines if (found := re.match(r"#(\w+)=", line))]
    values = {
        "TUNESMITH_STORAGE_FOLDER": "",
        "TUNESMITH_STORAGE_URL": "s3://bucket/prefix",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": endpoint,
    }
    assert sorted(names) == sorted(values)
    return values


@pytest.mark.parametrize("endpoint", ["", "http://minio:9000"], ids=["Amazon's", "another"])
@pytest.mark.parametrize("name", ["api", "worker", "housekeeping", "engine"])
def test_storage_is_a_volume_or_s3(
    name: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS[module(SERVICES[name])]
    for given in ({}, in_s3(endpoint)):
        for key, value in SERVICES[name]["environment"].items():
            monkeypatch.setenv(key, filled_in(value, given))
        found = settings()
        assert isinstance(found, StorageSettings)
        if not given:
            assert found.storage_folder == Path("/var/lib/tunesmith/storage")
            assert found.storage_url is None
    assert (found.storage_folder, found.storage_url) == (None, "s3://bucket/prefix")
    open_store(found.storage_folder, found.storage_url)  # boto3 takes what is left empty


def test_optional_variables_are_named_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text()
    for name in ("TUNESMITH_CATALOG_FILE", "TUNESMITH_ENDPOINTS_FILE", "HF_TOKEN"):
        assert f"${{{name}:-}}" in (ROOT / "docker-compose.yml").read_text()
        assert re.search(rf"^{name}=$", example, re.M)
    [catalog] = [entry for entry in SERVICES["api"]["volumes"] if entry.startswith("./catalog:")]
    _, folder, mode = catalog.split(":")
    assert folder in example
    assert mode == "ro"


def test_secrets_come_from_outside() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    example = (ROOT / ".env.example").read_text()
    for secret in ("TUNESMITH_API_KEY", "TUNESMITH_ENGINE_KEY", "POSTGRES_PASSWORD"):
        assert f"${{{secret}:?" in text
        assert re.search(rf"^{secret}=$", example, re.M)
    assert ".env" in (ROOT / ".gitignore").read_text().split()


def test_the_allocator_of_an_engine_is_set_as_under_up() -> None:
    engines = [each for each in OURS.values() if each["command"][-1] == "worker.engine"]
    assert engines
    assert all(each["environment"]["GLIBC_TUNABLES"] == ENGINE_TUNABLES for each in engines)


def test_only_the_api_is_reachable_and_only_from_this_machine() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["api"]
    assert SERVICES["api"]["ports"] == ["${PUBLISH:-127.0.0.1:8000}:8000"]


def test_every_long_lived_service_is_checked() -> None:
    for name, service in SERVICES.items():
        if module_or_none(service) == "migrations.upgrade":
            assert service["healthcheck"] == {"disable": True}
        elif name not in WITH_CHECK_OF_IMAGE:
            assert service["healthcheck"]["test"][0] == "CMD", name


def module_or_none(service: dict[str, Any]) -> str | None:
    return module(service) if "build" in service else None


async def unasked(request: Request) -> Response:
    raise AssertionError(f"{request.url} was not to be asked")


def test_routes_of_the_health_checks_exist(tmp_path: Path, sqlite_url: str) -> None:
    settings = ApiSettings(
        database_url=sqlite_url,
        broker_url=f"folder://{tmp_path / 'broker'}",
        storage_folder=tmp_path / "storage",
    )
    [api_check] = re.findall(r"127\.0\.0\.1:8000(/\w+)", (ROOT / "Dockerfile").read_text())
    [engine_check] = re.findall(
        r"127\.0\.0\.1:8001(/\w+)", SERVICES["engine"]["healthcheck"]["test"][-1]
    )
    assert api_check in create_app(settings).openapi()["paths"]
    engine = engine_application(unasked, {}, unasked, CollectorRegistry(), lifespan=nullcontext)
    assert engine_check in [route.path for route in engine.routes]


def test_processes_wait_for_the_schema() -> None:
    for name in ("api", "housekeeping", "worker", "worker-gpu", "light-worker"):
        needed = SERVICES[name]["depends_on"]
        assert needed["migrate"] == {"condition": "service_completed_successfully"}
        assert needed["redis"] == {"condition": "service_healthy"}
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}


def test_volumes_are_shared_where_processes_meet() -> None:
    storage = {volumes(OURS[name])["storage"] for name in set(OURS) - {"migrate"}}
    assert storage == {"/var/lib/tunesmith/storage"}
    assert volumes(SERVICES["worker"])["work"] == volumes(SERVICES["housekeeping"])["work"]
    used = {volume for service in SERVICES.values() for volume in volumes(service)}
    assert used == set(COMPOSE["volumes"])
    dockerfile = (ROOT / "Dockerfile").read_text()
    for service in OURS.values():
        for folder in volumes(service).values():
            assert folder in dockerfile, f"{folder} would belong to root"


def test_gpu_variant_differs_by_its_device_and_nothing_else() -> None:
    for name in ("worker", "engine"):
        cpu, gpu = dict(SERVICES[name]), dict(SERVICES[f"{name}-gpu"])
        assert (cpu.pop("profiles"), gpu.pop("profiles")) == (["cpu"], ["gpu"])
        [device] = gpu.pop("deploy")["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
        assert cpu == gpu
    assert "COMPOSE_PROFILES=cpu" in (ROOT / ".env.example").read_text()


def test_light_worker_runs_with_and_without_a_gpu_and_takes_none() -> None:
    light = SERVICES["light-worker"]
    assert "profiles" not in light and "deploy" not in light
    assert light["image"] == SERVICES["worker"]["image"]
    assert volumes(light)["work"] == volumes(SERVICES["housekeeping"])["work"]


def test_worker_has_time_to_give_its_job_back() -> None:
    for name in ("worker", "worker-gpu", "light-worker"):
        assert SERVICES[name]["stop_grace_period"] == "45s"
        assert SERVICES[name]["init"] is True


def test_engine_has_time_to_end_its_answers() -> None:
    drain_seconds = EngineSettings.model_fields["drain_seconds"].default
    for name in ("engine", "engine-gpu"):
        longest = drain_seconds + 2 * TIMEOUT_SECONDS + SHUTDOWN_SECONDS + STOP_SECONDS
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > longest
        assert SERVICES[name]["init"] is True
