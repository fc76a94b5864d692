"""The base that embeds texts for the metric `cosine`, for which OpenAI's graders have no field."""

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.auth.caller import Caller
from api.models.bases import KnownFiles
from core.errors import InvalidRequest, NotFound
from core.inference.targets import Target
from core.records.ids import new_id
from core.spec.base_model import BaseModelSpec
from core.spec.embedding import EmbeddingRequest
from core.spec.engine_calls import EMBED
from core.spec.ids import ModelId

NOT_AN_EMBEDDER = "not_an_embedder"
"""The code with which an engine refuses a base that embeds no texts."""


async def find_embedder(state: AppState, caller: Caller, param: str) -> Target:
    """Return the first base of the catalog that is present and embeds texts, as an engine says.

    Raises InvalidRequest `no_embedder` with `param` if there is none, and Unavailable if no engine
    can say.
    """
    for base in await run_in_threadpool(_present_bases, state):
        request = EmbeddingRequest(
            id=new_id("embd"), base=base, adapter=None, texts=("a",), project=caller.project
        )
        try:
            await state.engines.ask(EMBED, request)
        except NotFound:
            continue
        except InvalidRequest as error:
            if error.code == NOT_AN_EMBEDDER:
                continue
            raise
        return Target(ModelId(base.id), base, None)
    raise InvalidRequest(
        "The metric 'cosine' compares embeddings, and no base model of this service embeds texts. "
        "Add an encoder such as sentence-transformers/all-MiniLM-L6-v2 to the catalog file, or "
        "use another metric.",
        param=param,
        code="no_embedder",
    )


def _present_bases(state: AppState) -> Sequence[BaseModelSpec]:
    with state.database.reading() as session:
        files = KnownFiles(session, state)
        entries = state.catalog.bases()
        return [entry.spec for entry in entries if files.of(entry).state == "present"]
