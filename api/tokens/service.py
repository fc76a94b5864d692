"""Tokenizes for a client: finds the model, and asks an engine, which has its tokenizer."""

from typing import Any

from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.auth.caller import Caller
from api.models.service import find_answering
from core.inference.targets import Target
from core.inference.tokens import (
    DetokenizeBody,
    TokenizeBody,
    plan_detokenize,
    plan_tokenize,
    plan_tokenizer_info,
    tokenized,
    tokenizer_info,
)
from core.spec.engine_calls import DESCRIBE_TOKENIZER, DETOKENIZE, TOKENIZE
from core.spec.ids import ModelId


async def tokenize(state: AppState, caller: Caller, body: TokenizeBody) -> dict[str, Any]:
    target = await _target(state, caller, body.model)
    request = plan_tokenize(target, caller.project, body)
    return tokenized(await state.engines.ask(TOKENIZE, request))


async def detokenize(state: AppState, caller: Caller, body: DetokenizeBody) -> dict[str, Any]:
    target = await _target(state, caller, body.model)
    request = plan_detokenize(target, caller.project, body)
    return {"prompt": (await state.engines.ask(DETOKENIZE, request)).text}


async def describe(state: AppState, caller: Caller, name: ModelId | None) -> dict[str, Any]:
    target = await _target(state, caller, name)
    request = plan_tokenizer_info(target, caller.project)
    return tokenizer_info(await state.engines.ask(DESCRIBE_TOKENIZER, request))


async def _target(state: AppState, caller: Caller, name: ModelId | None) -> Target:
    return await run_in_threadpool(find_answering, state, caller, name)
