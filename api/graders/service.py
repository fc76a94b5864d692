"""The operations of the graders' routes."""

import time

from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.auth.caller import Caller
from api.graders.judges import ApiJudges
from api.graders.models import require_models
from api.graders.schemas import (
    GraderRun,
    RunGrader,
    ValidateGrader,
    ValidGrader,
    grader_run,
    valid_grader,
)
from core.grading.grade import grade
from core.grading.sample import sample_of_text
from core.grading.validate import check_grader, require_json


async def run(state: AppState, caller: Caller, body: RunGrader) -> GraderRun:
    """Grade one answer. A grader that fails on it gives 0 and a flag, not an error."""
    await run_in_threadpool(_check, body)
    models = await require_models(state, caller, {"grader": body.grader})
    started = time.perf_counter()
    sample = sample_of_text(body.model_sample)
    judges = ApiJudges(state, caller, models)
    result = await grade(body.grader, body.item or {}, sample, judges)
    return grader_run(body.grader, result, time.perf_counter() - started)


def _check(body: RunGrader) -> None:
    check_grader(body.grader)
    require_json(body.item, "item")
    require_json(body.model_sample, "model_sample")


async def validate(state: AppState, caller: Caller, body: ValidateGrader) -> ValidGrader:
    await run_in_threadpool(check_grader, body.grader)
    await require_models(state, caller, {"grader": body.grader})
    return valid_grader(body.grader)
