"""Runs a program as its user would: in its own environment, in an empty folder, on this machine."""

import json
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.clients.environments import ENVIRONMENTS, ROOT, installed_version, programs_path
from tests.clients.program import Program

RESULTS = ENVIRONMENTS / "results"
TOKENIZER = ROOT / "core" / "models" / "tiny"
COMMANDS = {".py": "python", ".mjs": "node", ".sh": "bash"}

NOWHERE = "http://127.0.0.1:9"
"""No proxy listens there: a program that asks another machine fails instead of reaching it."""


@dataclass(frozen=True)
class Given:
    """What a recipe finds in its environment."""

    url: str
    base: str
    model: str
    job: str
    train_file: Path
    login_url: str
    """Of a server that accepts any login."""

    def environment(self, folder: Path, path: str) -> dict[str, str]:
        return {
            "PATH": path,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "OPENAI_BASE_URL": f"{self.url}/v1",
            "OPENAI_API_KEY": "none",
            "BASE": self.base,
            "MODEL": self.model,
            "JOB": self.job,
            "TOKENIZER": str(TOKENIZER),
            "WANDB_API_KEY": "0" * 40,
            "WANDB_BASE_URL": self.login_url,
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
        }


@dataclass(frozen=True)
class Result:
    """One row of the table in docs/clients.md."""

    program: str
    version: str
    done: str
    result: str
    seconds: float
    day: str


def run(program: Program, given: Given, folder: Path, path: str) -> str:
    """Return what the recipe printed; AssertionError with it if the recipe failed."""
    work = Path(shutil.copytree(program.sources, folder / program.folder))
    shutil.copy(given.train_file, work / "train.jsonl")
    installed = ENVIRONMENTS / program.environment / "node_modules"
    if program.kind == "node":
        (work / "node_modules").symlink_to(installed)
    recipe = program.recipe_file.name
    try:
        done = subprocess.run(
            [COMMANDS[program.recipe_file.suffix], recipe],
            cwd=work,
            env=given.environment(work, path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=program.timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        printed = (late.stdout or b"").decode(errors="replace")
        raise AssertionError(f"no end after {program.timeout_seconds} s\n{printed}") from None
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_and_note(program: Program, given: Given, folder: Path) -> None:
    """Run a program and keep its result for the table, also when it fails."""
    path = programs_path(program)
    version, start = installed_version(program), time.monotonic()
    outcome = "passed"
    try:
        run(program, given, folder, path)
    except AssertionError as failed:
        outcome = f"failed: {str(failed).strip().splitlines()[-1][:120]}"
        raise
    finally:
        seconds = round(time.monotonic() - start, 1)
        day = datetime.now(UTC).date().isoformat()
        note(program, Result(program.title, version, program.done, outcome, seconds, day))


def note(program: Program, result: Result) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{program.folder}-{program.environment}.json"
    file.write_text(json.dumps(asdict(result), indent=1))


def noted(program: Program) -> Result | None:
    file = RESULTS / f"{program.folder}-{program.environment}.json"
    return Result(**json.loads(file.read_text())) if file.exists() else None
