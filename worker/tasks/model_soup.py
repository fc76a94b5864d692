"""Makes a soup: fetches the bundles, and adds them in the child."""

from core.artifacts.archive import unpack
from core.spec.made_model import MadeModel, SoupRequest
from core.spec.making import SoupSource
from worker.tasks.attempt import Attempt
from worker.tasks.making import Making
from worker.training.resume import fetch_checked


def run(attempt: Attempt) -> MadeModel:
    request = SoupRequest.model_validate(attempt.payload)
    making = Making(attempt, request)
    if (made := making.begin()) is not None:
        return made
    for index, model in enumerate(request.models):
        assert model.adapter is not None, "the API refuses bases"
        archive = attempt.folder / f"source-{index}.zip"
        fetch_checked(attempt.store, model.adapter, archive)
        unpack(archive, attempt.folder / f"source-{index}")
        archive.unlink()
    return making.make(SoupSource(weights=request.weights))
