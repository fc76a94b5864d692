"""The API process, from its settings to its server."""

import gc
import logging
import sys

import uvicorn
from pydantic import ValidationError

from api.app import create_app
from api.connections import BoundedHttp
from api.request_log import write_lines_to_stderr
from api.settings import ApiSettings
from core.catalog.bases import BadCatalog
from core.open_files import allow_many_open_files
from core.sandbox.availability import log_availability

KEEP_ALIVE_SECONDS = 75  # longer than the idle time of usual clients, so that they close first
SWITCH_SECONDS = 0.0005  # the longest that a computing thread delays streams
GC_THRESHOLD = 10_000
SHUTDOWN_SECONDS = 5  # for running responses; an event stream never ends by itself


def run_api() -> None:
    """Serve until a signal. Exits with one line per mistake in the settings or the catalog."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    allow_many_open_files()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        settings = ApiSettings()
        app = create_app(settings)
    except ValidationError as error:
        sys.exit(f"The API failed to start:\n{_explanation(error)}")
    except BadCatalog as error:
        sys.exit(f"The API failed to start: {error}")
    write_lines_to_stderr()
    log_availability()
    _collect_garbage_rarely()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=BoundedHttp,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )


def _collect_garbage_rarely() -> None:
    """Exclude the objects of the startup; a large body would trigger hundreds of collections.

    They are not collected even once: 0.1 s for less than a hundredth of them.
    """
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    gc.enable()


def _explanation(error: ValidationError) -> str:
    """Return one line per invalid setting, without values, because one may be the key."""
    errors = error.errors(include_input=False, include_url=False)
    names = ("".join(f"TUNESMITH_{part}: ".upper() for part in each["loc"]) for each in errors)
    return "\n".join(f"  {name}{each['msg']}" for name, each in zip(names, errors, strict=True))
