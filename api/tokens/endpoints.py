"""vLLM's routes for a model's tokenizer, at the root as there."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.app_state import FromState
from api.auth.caller import FromCaller, requires
from api.json_body import PromptRoute
from api.tokens.service import describe, detokenize, tokenize
from core.inference.tokens import DetokenizeBody, ModelName, TokenizeBody

router = APIRouter(route_class=PromptRoute, dependencies=[requires("inference")])


@router.post("/tokenize", tags=["Tokenizer"])
async def create_tokens(body: TokenizeBody, state: FromState, caller: FromCaller) -> dict[str, Any]:
    return await tokenize(state, caller, body)


@router.post("/detokenize", tags=["Tokenizer"])
async def create_text(body: DetokenizeBody, state: FromState, caller: FromCaller) -> dict[str, Any]:
    return await detokenize(state, caller, body)


@router.get("/tokenizer_info", tags=["Tokenizer"])
async def get_tokenizer(
    state: FromState, caller: FromCaller, model: Annotated[ModelName | None, Query()] = None
) -> dict[str, Any]:
    return await describe(state, caller, model)
