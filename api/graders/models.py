"""The models that graders name, resolved for the caller: shared by all routes that take graders."""

from collections.abc import Mapping

from api.app_state import AppState
from api.auth.caller import Caller, require_scopes
from api.graders.embedder import find_embedder
from api.models.resolve import batch_model, resolved_models
from core.grading.models import EMBEDDER, models_named_by
from core.grading.texts import single_graders
from core.inference.error_bodies import error_of
from core.spec.batch import BatchModel, RefusedModel
from core.spec.grader import Grader


async def require_models(
    state: AppState, caller: Caller, graders: Mapping[str, Grader]
) -> dict[str, BatchModel]:
    """Return the models of graders, which are given by their paths in the request.

    The result is what `worker.judges.WorkerJudges` needs; EMBEDDER is the base for `cosine`.
    Raises Forbidden for a key without the scope `inference`, and the error of the first model that
    cannot answer, with the path of its grader.
    """
    places = {
        name: place
        for path, grader in graders.items()
        for place, each in single_graders(grader, path)
        for name in models_named_by(each)
    }
    if places:
        require_scopes(caller, "inference")
    found = await resolved_models(state, caller, places.keys() - {EMBEDDER})
    models: dict[str, BatchModel] = {}
    for name, model in found.items():
        if isinstance(model, RefusedModel):
            error = error_of(model.status, model.body)
            error.param = f"{places[name]}.model"
            raise error
        models[name] = model
    if EMBEDDER in places:
        models[EMBEDDER] = batch_model(
            await find_embedder(state, caller, f"{places[EMBEDDER]}.evaluation_metric")
        )
    return models
