"""The HTTP application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CapacityLimiter
from fastapi import FastAPI

from api.classifications.endpoints import router as classifications
from api.errors import ERROR_RESPONSES, install_error_handlers
from api.files.endpoints import router as files
from api.files.upload import MAX_UPLOADS
from api.generation.endpoints import router as generation
from api.generation.engine_client import EngineClient
from api.health.endpoints import router as health
from api.jobs.endpoints import router as jobs
from api.masks.endpoints import router as masks
from api.middleware import AuthMiddleware, BodyLimitMiddleware, RequestMiddleware
from api.models.endpoints import router as models
from api.parts import Parts
from api.settings import ApiSettings
from api.speed.endpoints import router as speed
from core.catalog.bases import Catalog
from core.jobs.broker import Broker
from core.records.database import Database
from core.records.projects import ensure_project
from core.storage.local import open_store


def create_app(settings: ApiSettings) -> FastAPI:
    """Return the application; it connects to nothing before its lifespan begins."""
    parts = Parts(
        settings=settings,
        database=Database(settings.database_url),
        store=open_store(settings.storage_folder),
        broker=Broker(settings.broker_url),
        catalog=Catalog.load(settings.catalog_file),
        engine=EngineClient(settings.engine_url, settings.engine_key),
        uploads=CapacityLimiter(MAX_UPLOADS),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with parts.database.writing() as session:
            ensure_project(session, settings.project)
        yield
        await parts.engine.close()
        parts.database.close()

    app = FastAPI(
        title="Tunesmith",
        lifespan=lifespan,
        docs_url=None,  # the page would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.parts = parts
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes)
    app.add_middleware(AuthMiddleware, api_key=settings.api_key)
    app.add_middleware(RequestMiddleware)
    install_error_handlers(app)
    for router in (files, jobs, masks, speed, models, generation, classifications):
        app.include_router(router, prefix="/v1", responses=ERROR_RESPONSES)
    app.include_router(health)
    return app
