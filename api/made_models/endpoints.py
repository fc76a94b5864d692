"""Routes for models without a job: /v1/models/import and /v1/models/soups."""

from fastapi import APIRouter

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.made_models import service
from api.made_models.schemas import CreateImport, CreateSoup, ImportObject, SoupObject
from api.repeats import MakingRoute
from core.spec.ids import TaskId

router = APIRouter(
    prefix="/models",
    tags=["Models"],
    route_class=MakingRoute,
    dependencies=[requires("models", "fine_tuning")],
)


@router.post("/import")
def import_model(body: CreateImport, state: FromState, caller: FromCaller) -> ImportObject:
    """Make a model of an adapter that PEFT saved, from uploaded files of purpose `adapter`."""
    with state.transaction() as transaction:
        return service.create_import(transaction, state, caller, body)


@router.get("/import/{import_id}")
def retrieve_import(import_id: TaskId, state: FromState, caller: FromCaller) -> ImportObject:
    """How far an import is; at the end its model, or why the adapter was refused."""
    with state.database.reading() as session:
        return service.get_import(session, caller, import_id)


@router.post("/soups")
async def create_soup(body: CreateSoup, state: FromState, caller: FromCaller) -> SoupObject:
    """Make a model that is the weighted sum of several adapters of one base."""
    return await service.create_soup(state, caller, body)


@router.get("/soups/{soup_id}")
def retrieve_soup(soup_id: TaskId, state: FromState, caller: FromCaller) -> SoupObject:
    """How far a soup is; at the end its model, or why the adapters cannot be added."""
    with state.database.reading() as session:
        return service.get_soup(session, caller, soup_id)
