"""The HTTP application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from anyio import CapacityLimiter
from fastapi import FastAPI

from api.app_state import AppState
from api.auth.keys import StaticKey
from api.auth.middleware import AuthMiddleware
from api.batches.endpoints import router as batches
from api.classifications.endpoints import router as classifications
from api.comparisons.endpoints import router as comparisons
from api.distillations.endpoints import router as distillations
from api.embeddings.endpoints import router as embeddings
from api.engines.endpoints import router as engines
from api.errors import ERROR_RESPONSES, install_error_handlers
from api.evals.endpoints import router as evals
from api.exports.endpoints import router as exports
from api.files.endpoints import router as files
from api.files.upload import MAX_UPLOADS
from api.generation.endpoints import router as generation
from api.generation.engine_roster import EngineRoster
from api.generation.engine_router import EngineRouter
from api.graders.endpoints import router as graders
from api.health.endpoints import router as health
from api.jobs.endpoints import router as jobs
from api.jobs.event_stream import last_events
from api.json_body import Turns
from api.made_models.endpoints import router as made_models
from api.masks.endpoints import router as masks
from api.middleware import BodyLimitMiddleware, HeadMiddleware, RequestMiddleware
from api.models.endpoints import router as models
from api.news import News
from api.planning.endpoints import router as planning
from api.repeats import Running
from api.responses.endpoints import router as responses
from api.settings import ApiSettings
from api.speed.endpoints import router as speed
from api.stored_completions.endpoints import router as stored_completions
from api.sweeps.endpoints import router as sweeps
from api.tokens.endpoints import router as tokens
from core.catalog.bases import Catalog
from core.catalog.external import Endpoints
from core.engine_client import EngineClient
from core.jobs.broker import Broker
from core.records.database import Database
from core.records.projects import ensure_project
from core.records.worker_bases import declare_bases
from core.spec.ids import ProjectId
from core.storage.open import open_store

V1_ROUTERS = (
    files,
    jobs,
    sweeps,
    comparisons,
    distillations,
    graders,
    masks,
    planning,
    speed,
    exports,
    made_models,  # before the models, whose ids may be any path
    models,
    generation,
    stored_completions,
    responses,
    batches,
    evals,
    embeddings,
    classifications,
)


def create_app(settings: ApiSettings) -> FastAPI:
    """Return the application; it makes no connections before its lifespan begins."""
    database = Database(settings.database_url)
    project = ProjectId(settings.project)
    catalog, endpoints = (
        Catalog.load(settings.catalog_file),
        Endpoints.load(settings.endpoints_file),
    )
    endpoints.require_distinct(catalog.names())
    state = AppState(
        settings=settings,
        database=database,
        store=open_store(settings.storage_folder, settings.storage_url),
        broker=Broker(settings.broker_url),
        catalog=catalog,
        endpoints=endpoints,
        engines=EngineRouter(EngineClient(settings.engine_key), EngineRoster(database)),
        uploads=CapacityLimiter(MAX_UPLOADS),
        job_news=News(partial(last_events, database)),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with state.database.writing() as session:
            ensure_project(session, project)
            declare_bases(session, (base.spec for base in state.catalog.bases()))
        yield
        await state.engines.close()
        state.database.close()

    app = FastAPI(
        title="Tunesmith",
        lifespan=lifespan,
        docs_url=None,  # the page would load scripts from another site
        redoc_url=None,
    )
    app.state.tunesmith = state
    app.state.turns = Turns()
    app.state.running = Running()
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes)
    app.add_middleware(
        AuthMiddleware, key=StaticKey(settings.api_key, project), engine_key=settings.engine_key
    )
    app.add_middleware(HeadMiddleware)
    app.add_middleware(RequestMiddleware)
    install_error_handlers(app)
    for router in V1_ROUTERS:
        app.include_router(router, prefix="/v1", responses=ERROR_RESPONSES)
    app.include_router(tokens, responses=ERROR_RESPONSES)
    app.include_router(health)
    app.include_router(engines)
    return app
