"""The graders of a job's evaluation: checked, and their models resolved, when it is created."""

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.auth.caller import Caller
from api.graders.models import require_models
from core.grading.validate import check_grader
from core.spec.batch import BatchModel
from core.spec.grader import Grader


async def models_of_graders(
    state: AppState, caller: Caller, graders: Sequence[Grader], path: str
) -> dict[str, BatchModel]:
    """Return the models that graders ask. Their errors name the field, below `path`.

    Raises InvalidRequest, NotFound, or Forbidden for a key without the scope `inference`.
    """
    if not graders:
        return {}
    named = {f"{path}[{number}]": grader for number, grader in enumerate(graders)}
    for place, grader in named.items():
        await run_in_threadpool(check_grader, grader, place)
    return await require_models(state, caller, named)
