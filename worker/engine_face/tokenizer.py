"""The routes of an engine for a model's tokenizer; they need no weights and no device."""

from collections.abc import Callable

from anyio import CapacityLimiter, to_thread
from pydantic import SecretStr
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from core.engine.text.prompts import PromptReader
from core.engine.text.served_model import ServedModel
from core.engine.text.tokenizing import describe_tokenizer, detokenize, tokenize
from core.spec.base_model import BaseModelSpec
from core.spec.engine_calls import (
    DESCRIBE_TOKENIZER,
    DETOKENIZE,
    TOKENIZE,
    Answered,
    Asked,
    Call,
)
from worker.engine_face.http import Handler, answered, read_body


def tokenizer_handlers(
    reader: PromptReader,
    key: SecretStr | None,
    readers: CapacityLimiter | None = None,
    admit: Callable[[BaseModelSpec], None] = lambda base: None,
) -> dict[str, Handler]:
    """Return the handlers by path. `admit` raises NotServedHere for a base of another engine."""

    def handler(
        call: Call[Asked, Answered], work: Callable[[Asked, ServedModel], Answered]
    ) -> Handler:
        async def handle(request: Request) -> Response:
            asked = await read_body(request, call.request, key)
            admit(asked.base)
            model = await run_in_threadpool(reader.tokenizing, asked.base, asked.adapter)
            return answered(await to_thread.run_sync(work, asked, model, limiter=readers))

        return handle

    return {
        TOKENIZE.path: handler(TOKENIZE, tokenize),
        DETOKENIZE.path: handler(DETOKENIZE, detokenize),
        DESCRIBE_TOKENIZER.path: handler(
            DESCRIBE_TOKENIZER, lambda asked, model: describe_tokenizer(model)
        ),
    }
