"""The requests that docs/api.md shows are taken, and its table has every route."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from fastapi.routing import APIRoute

from api.app import V1_ROUTERS
from api.graders.schemas import ValidateGrader
from api.jobs.schemas import CreateJob
from core.catalog.strategies import STRATEGIES
from core.grading.validate import check_grader
from core.spec.grader import Grader
from core.spec.objective import MethodName

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


def bodies_of_jobs():
    decoder = json.JSONDecoder()
    for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL):
        is_job = '"model": "tunesmith/tiny"' in block and "custom_id" not in block
        rest = block if is_job else ""
        while rest := rest.strip():
            body, end = decoder.raw_decode(rest)
            yield body
            rest = rest[end:]


def test_bodies_are_of_every_strategy_and_method():
    bodies = [CreateJob.model_validate(body) for body in bodies_of_jobs()]
    assert {body.strategy.type for body in bodies} == set(STRATEGIES)
    assert {body.method.type for body in bodies if body.method} == set(get_args(MethodName))


def test_bodies_are_of_every_grader():
    section = PAGE.partition("\n## Graders\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```json\n(\{\"grader\".*?)```", section, re.DOTALL)
    graders = [ValidateGrader.model_validate_json(block).grader for block in blocks]
    for grader in graders:
        check_grader(grader)
    assert {grader.type for grader in graders} == {
        get_args(each.model_fields["type"].annotation)[0] for each in get_args(get_args(Grader)[0])
    }


def test_call_of_the_stock_client_makes_a_body():
    (call,) = re.findall(r"^job = client.fine_tuning.jobs.create\((.*?)^\)", PAGE, re.M | re.S)
    arguments = eval(f"dict({call.replace('file.id', repr('file-1'))})")
    body = CreateJob.model_validate(arguments | arguments.pop("extra_body"))
    assert (body.strategy.rank, body.evaluation.split) == (8, 0.1)


@pytest.mark.parametrize(
    "route",
    [route for router in V1_ROUTERS for route in router.routes if isinstance(route, APIRoute)],
    ids=lambda route: f"{min(route.methods)} {route.path}",
)
def test_every_route_is_in_the_table(route):
    table = PAGE.partition("## Routes")[2].partition("\n## ")[0]
    told = [
        (method, last_part(path))
        for method, path in re.findall(r"`(GET|POST|DELETE) ([^`?]+)`", table)
    ]
    assert all((method, last_part(route.path)) in told for method in route.methods)


def last_part(path):
    """The end of a path; `…` stands for the path before it in the table."""
    part = path.rpartition("/")[2]
    return "{id}" if part.startswith(("{", "…")) else part
