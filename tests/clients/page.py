"""Writes docs/clients.md: `python -m tests.clients.page`.

The text before the recipes is kept. Recipes come from `programs/`; a row of the table of results
is replaced when its program has run since.
"""

import json
from collections.abc import Iterable
from itertools import groupby

from tests.clients.environments import ROOT
from tests.clients.program import PROGRAMS, Program
from tests.clients.run import Result, noted

PAGE = ROOT / "docs" / "clients.md"
RESULTS_HEADING = "## Results"
RECIPES_HEADING = "## Recipes"

COLUMNS = ("Program", "Version", "What was done", "Result", "Seconds", "Date")


def page(old: str, results: Iterable[Result | None]) -> str:
    """Return the page with the recipes of now, and with these results in its table."""
    introduction, _, rest = old.partition(f"{RESULTS_HEADING}\n")
    kept = _rows(rest)
    lines = [f"{RESULTS_HEADING}\n", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
    for program, result in zip(PROGRAMS, results, strict=True):
        row = kept.get((program.title, program.done, _pinned_version(program)))
        cells = _cells(result) if result else row
        if cells:
            lines.append(_line(cells))
    return "\n".join([introduction + lines[0], *lines[1:], "", recipes()])


def recipes() -> str:
    sections = [RECIPES_HEADING]
    for title, group in groupby(PROGRAMS, lambda program: program.title):
        sections.append(f"### {title}")
        of_title = {program.folder: program for program in group}
        for program in of_title.values():
            sections += [program.note] if program.note else []
            sections += [_block(*block) for block in program.blocks]
    return "\n\n".join(sections) + "\n"


def _block(name: str, language: str, text: str) -> str:
    head = f"`{name}`:\n\n" if name else ""
    return f"{head}```{language}\n{text.rstrip()}\n```"


def _pinned_version(program: Program) -> str:
    text = program.pinned.read_text()
    if program.kind == "node":
        return str(json.loads(text)["packages"][f"node_modules/{program.package}"]["version"])
    for line in text.splitlines():
        name, _, version = line.partition("==")
        if name.lower().replace("_", "-") == program.package:
            return version
    raise ValueError(f"{program.pinned.name} does not pin {program.package}")


def _cells(result: Result) -> list[str]:
    return [
        result.program,
        result.version,
        result.done,
        result.result.replace("|", "\\|"),
        f"{result.seconds:g}",
        result.day,
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rows(text: str) -> dict[tuple[str, str, str], list[str]]:
    """The rows of the table of results, by program, what was done, and version."""
    table = text.partition(RECIPES_HEADING)[0]
    rows = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {(row[0], row[2], row[1]): row for row in rows if len(row) == len(COLUMNS)}


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), [noted(program) for program in PROGRAMS]))
