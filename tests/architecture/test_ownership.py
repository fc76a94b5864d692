"""One file decides whose a row is; nothing else compares projects or looks rows up without one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.records.tables import Table

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "worker", "core", "cli")
THE_ONE = ROOT / "core" / "records" / "owned.py"

OWNED = {
    mapper.class_.__name__ for mapper in Table.registry.mappers if "project_id" in mapper.columns
}
"""By name. Some have no id of their own, such as the mask of a job, and are no `Owned`."""


def violations(source: str) -> Iterator[str]:
    """Yield what a file does by hand that `core.records.owned` is for."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Compare() if _names_project_id(node):
                yield f"line {node.lineno} compares project_id"
            case ast.Call(func=ast.Attribute(value=owner)) if _is_project_id(owner):
                yield f"line {node.lineno} filters by a method of project_id"
            case ast.Call(func=ast.Attribute(attr="filter_by"), keywords=keywords) if any(
                keyword.arg == "project_id" for keyword in keywords
            ):
                yield f"line {node.lineno} filters by project_id"
            case ast.Call(
                func=ast.Attribute(attr="get" | "get_one"), args=[ast.Name(id=name), *_]
            ) if name in OWNED:
                yield f"line {node.lineno} gets a {name} without its owner"


def _names_project_id(comparison: ast.Compare) -> bool:
    return any(
        _is_project_id(part)
        for side in (comparison.left, *comparison.comparators)
        for part in ast.walk(side)
    )


def _is_project_id(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "project_id"


def test_only_one_file_compares_projects() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert THE_ONE in files
    found = {
        path.relative_to(ROOT).as_posix(): wrong
        for path in files
        if path != THE_ONE and (wrong := list(violations(path.read_text(encoding="utf-8"))))
    }
    assert not found, f"use get_owned, find_owned or owned_by of core.records.owned: {found}"


def test_the_one_file_is_what_the_rule_sees() -> None:
    assert list(violations(THE_ONE.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "planted",
    [
        "select(Job).where(Job.project_id == project)",
        "if job is None or job.project_id != caller.project: raise NotFound",
        "(model.project_id, model.bundle_key) != (project, key)",
        "caller.project in (job.project_id, None)",
        "select(File).where(File.project_id.in_([project]))",
        "File.project_id.is_(None)",
        "session.query(Job).filter_by(project_id=project)",
        "session.get(Job, job_id)",
        "session.get(Task, task_id)",
        "session.get(JobMask, job_id)",
        "session.get_one(TunedModel, model_id, with_for_update=True)",
    ],
)
def test_a_planted_violation_is_seen(planted: str) -> None:
    assert list(violations(planted))


@pytest.mark.parametrize(
    "fine",
    [
        "File(project_id=caller.project)",
        "session.get(Worker, id)",
        "record.project_id",
        "{}.get(1)",
    ],
)
def test_what_is_no_violation_is_not_seen(fine: str) -> None:
    assert not list(violations(fine))
