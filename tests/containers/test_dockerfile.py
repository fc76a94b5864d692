"""The Dockerfile, checked without an engine to build it."""

import importlib.metadata
import re
import subprocess
import sysconfig
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from core.exports.gguf.llama_cpp import CONVERTERS, PACKAGE

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = [
    line
    for line in re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    if line and not line.startswith("#")
]


def stages() -> dict[str, list[str]]:
    """The instructions of every stage, with those of the stages that it builds on."""
    found: dict[str, list[str]] = {}
    for line in INSTRUCTIONS:
        if line.startswith("FROM "):
            _, base, _, name = line.split()
            current = found[name] = list(found.get(base, [f"FROM {base}"]))
        else:
            current.append(line.strip())
    return found


def installed_closure(requirements: list[str], extras: set[str]) -> set[str]:
    """Names of all distributions that `requirements` bring, as they are installed here."""
    closure: set[str] = set()
    waiting = [(Requirement(text), extras) for text in requirements]
    while waiting:
        requirement, active = waiting.pop()
        environments = [{"extra": extra} for extra in active or {""}]
        if requirement.marker and not any(map(requirement.marker.evaluate, environments)):
            continue
        name = requirement.name.lower().replace("_", "-")
        if name in closure and not requirement.extras:
            continue
        closure.add(name)
        for needed in importlib.metadata.requires(requirement.name) or []:
            waiting.append((Requirement(needed), set(requirement.extras)))
    return closure


def test_linter_finds_nothing() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run(
        [hadolint, "--no-color", "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_that_is_copied_exists_and_reaches_the_builder() -> None:
    patterns = (ROOT / ".dockerignore").read_text().split("\n")
    kept = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    sources = {
        source
        for line in INSTRUCTIONS
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    }
    assert {"core", "pyproject.toml", "constraints.txt"} <= sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in kept), f"{source} is in .dockerignore"


def test_every_package_of_the_project_is_in_the_images() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {pattern.rstrip("*") for pattern in found}
    assert "core" in packages
    for stage in ("api-build", "worker-build"):
        copied = {line.split()[1] for line in stages()[stage] if line.startswith("COPY ")}
        assert packages <= copied


def test_api_image_has_no_torch_and_worker_image_has() -> None:
    metadata = importlib.metadata.requires("tunesmith") or []
    without_extras = installed_closure(metadata, set())
    with_training = installed_closure(metadata, {"train"})
    heavy = {"torch", "transformers", "peft", "bitsandbytes", "numpy"}
    assert {"fastapi", "celery", "sqlalchemy", "psycopg", "redis"} <= without_extras
    assert not heavy & without_extras
    assert heavy <= with_training
    assert not [line for line in stages()["api-build"] if "[train" in line]
    assert [line for line in stages()["worker-build"] if "[train]" in line]


def test_image_for_gguf_has_what_its_exports_look_for() -> None:
    """All that `core.exports.gguf.llama_cpp` needs, and a library that runs on other machines."""
    built = "\n".join(stages()["llama-cpp"])
    assert "-DGGML_NATIVE=OFF" in built, "it would be compiled for the machine that builds it"
    assert "-DGGML_OPENMP=OFF" in built, "the images have no libgomp"
    assert "--no-deps --no-binary llama-cpp-python -c constraints.txt" in built
    for name in CONVERTERS:
        first = name.partition("/")[0]
        kept = "sources/convert_*_to_gguf.py" if first.endswith(".py") else f"sources/{first}"
        assert fnmatch(f"sources/{first}", kept) and f" {kept} " in built, name
    pinned = f"{PACKAGE.replace('-', '_')}"
    assert pinned in (ROOT / "constraints.txt").read_text().splitlines()
    image = stages()["worker-gguf"]
    assert "ENV TUNESMITH_LLAMA_CPP=/srv/llama.cpp" in image
    assert "COPY --from=llama-cpp /srv/llama.cpp /srv/llama.cpp" in image
    assert any('"tunesmith[gguf]"' in line for line in stages()["gguf-build"])


@pytest.mark.parametrize("image", ["api", "worker", "worker-gguf"])
def test_image_runs_as_nobody_special_and_says_how_it_is(image: str) -> None:
    lines = stages()[image]
    [user] = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert int(user) > 0
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    assert f'CMD ["python", "-m", "{image.partition("-")[0]}"]' in lines
    assert any(line.startswith("COPY --from=") and "/srv/venv" in line for line in lines)
    assert lines[0] == "FROM python:3.11-slim"


@pytest.mark.parametrize("image", ["api", "worker", "worker-gguf"])
def test_image_has_what_the_sandbox_of_graders_needs(image: str) -> None:
    [install] = [line for line in stages()[image] if "apt-get install" in line]
    assert " bubblewrap " in install
    assert "compileall" in install


def test_images_are_pinned_and_hold_no_secret() -> None:
    installs = [line for line in INSTRUCTIONS if "pip install" in line]
    assert installs
    for line in installs:
        assert "-c constraints.txt" in line or "--no-deps" in line, line
    assert not [line for line in INSTRUCTIONS if re.search(r"(?i)password|api_key|token", line)]
