"""The wheel has every file that the service needs, and the release files are valid."""

import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.packaging import release
from tests.packaging.release import PACKAGES, ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
DATA = {
    "core/catalog/bases.toml",
    "migrations/script.py.mako",
    "core/models/tiny/model.safetensors",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel in a copy of the project, with the setuptools of this environment."""
    project = tmp_path_factory.mktemp("project")
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        target = project / name
        if (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
            continue
        for path in release.source_files():
            if path.startswith(f"{name}/"):
                (project / path).parent.mkdir(parents=True, exist_ok=True)
                (project / path).write_bytes((ROOT / path).read_bytes())
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", *options, "."]
    subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    (wheel,) = (project / "dist").glob("*.whl")
    return wheel


def test_the_wheel_has_every_file(built: Path) -> None:
    assert release.source_files() >= DATA
    assert release.missing(built) == set()


def test_the_wheel_has_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built) as wheel:
        rest = set(wheel.namelist()) - release.source_files()
        (entry_points,) = [name for name in rest if name.endswith("/entry_points.txt")]
        assert "tunesmith = cli.main:main" in wheel.read(entry_points).decode()
    assert all(".dist-info/" in name for name in rest)


def archives_without(path: str, folder: Path) -> list[Path]:
    """Make a wheel and a source archive of empty files, without one of them."""
    stem = f"tunesmith-{release.version()}"
    wheel, source = folder / f"{stem}-py3-none-any.whl", folder / f"{stem}.tar.gz"
    with zipfile.ZipFile(wheel, "w") as zipped, tarfile.open(source, "w:gz") as tar:
        for name in release.source_files() - {path}:
            zipped.writestr(name, "")
            tar.addfile(tarfile.TarInfo(f"{stem}/{name}"))
    return [wheel, source]


def test_a_release_needs_its_version_its_notes_and_every_file(tmp_path: Path) -> None:
    tag = f"v{release.version()}"
    complete = archives_without("", tmp_path)
    assert release.problems(tag, complete) == []
    assert release.problems(tag, complete[:1]) == ["There must be one source archive, not 0."]
    wrong = release.problems("v99.0.0", complete)
    assert [text.partition(",")[0] for text in wrong] == [
        "The tag is v99.0.0",
        "CHANGELOG.md has no dated section with notes for 99.0.0.",
    ]
    (tmp_path / "torn").mkdir()
    torn = archives_without("core/catalog/bases.toml", tmp_path / "torn")
    assert [text.partition(" lacks ")[2] for text in release.problems(tag, torn)] == [
        "core/catalog/bases.toml.",
        "core/catalog/bases.toml.",
    ]


def test_the_changelog_ends_with_the_version_of_the_project() -> None:
    names = list(release.sections())
    assert names[0] == "Unreleased" and names[1] == release.version()
    dates = [date for date, _ in list(release.sections().values())[1:]]
    assert all(dates) and dates == sorted(dates, reverse=True)


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-workflows", ".github/workflows/release.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml"),
        ("vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/feature.yml"),
        ("vendor.github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_files_for_github_follow_its_schemas(schema: str, path: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    done = subprocess.run([*command, str(ROOT / path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_runs_what_the_makefile_has() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"]
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert [step for step in steps if step.startswith("make ")] == [
        "make check",
        "make test-services",
        "make test",
        "make dist",
    ]
    assert "\ndist:" in (ROOT / "Makefile").read_text("utf-8")
    assert set(jobs["release"]["needs"]) == {"check", "build"} and jobs["pypi"]["needs"]


def test_hooks_run_the_commands_of_make_check() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    (repository,) = config["repos"]  # no versions of their own beside constraints.txt
    assert repository["repo"] == "local"
    makefile = (ROOT / "Makefile").read_text("utf-8")
    checks = makefile.partition("\ncheck:")[2].partition("\n\n")[0]
    run = {line.split("/", 1)[1].split()[0] for line in checks.splitlines() if "$(BIN)" in line}
    assert {
        hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]
    } == run


def test_the_container_for_development_sets_up_the_project() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf-8"))
    assert container["postCreateCommand"] == "make setup"
    assert container["image"].endswith(":3.11")
