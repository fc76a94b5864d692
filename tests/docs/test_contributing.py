"""The files that CONTRIBUTING.md and the templates name exist, so that the walks stay true."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md")
WALKS = ("strategy", "objective", "family", "resource", "kind of task")


def paths_in(page: str) -> list[str]:
    """Return what a page names in backticks with a slash, without patterns such as `<name>`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    named = re.findall(r"`([\w.-]+/[\w./-]*|[A-Z]+\.md)`", text)
    return sorted(set(named))


@pytest.mark.parametrize(
    ("page", "path"), [(page, path) for page in PAGES for path in paths_in(page)]
)
def test_a_named_file_exists(page: str, path: str) -> None:
    assert (ROOT / path).exists(), f"{page} names {path}"


@pytest.mark.parametrize("walk", WALKS)
def test_each_walk_is_short_and_names_files(walk: str) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = text.partition(f"## A new {walk}\n")[2].partition("\n## ")[0]
    assert 4 <= len(re.findall(r"^\d\. ", steps, re.MULTILINE)) <= 8
    assert len(re.findall(r"`[\w.-]+/[\w./<>-]+`", steps)) >= 4


def test_the_named_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert set(re.findall(r"\bmake ([a-z][a-z-]+)\b", text)) <= targets, page
