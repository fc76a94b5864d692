"""Makes a soup: fetches the bundles, and adds them in the child."""

from core.spec.made_model import MadeModel, SoupRequest
from core.spec.making import SoupSource
from worker.bundles import fetch_bundle
from worker.tasks.attempt import Attempt
from worker.tasks.making import Making


def run(attempt: Attempt) -> MadeModel:
    request = SoupRequest.model_validate(attempt.payload)
    making = Making(attempt, request)
    if (made := making.begin()) is not None:
        return made
    for index, model in enumerate(request.models):
        assert model.adapter is not None, "the API refuses bases"
        fetch_bundle(attempt.store, model.adapter, attempt.folder / f"source-{index}")
    return making.make(SoupSource(weights=request.weights))
