"""How the answers of a run are sampled, from the request; every model is resolved here."""

from collections.abc import Mapping
from typing import Any

from api.app_state import AppState
from api.auth.caller import Caller
from api.evals.data_sources import (
    CompletionsDataSource,
    DataSource,
    JsonlDataSource,
    ResponseSampling,
    ResponsesDataSource,
)
from api.graders.models import require_models
from api.models.first_use import answering_target
from api.models.resolve import batch_model
from core.errors import InvalidRequest, TunesmithError
from core.grading.models import models_named_by
from core.inference.endpoints import checked_body
from core.spec.evals import EvalModel, InputMessages, ReferencedMessages, SamplingSpec
from core.spec.grader import Grader
from core.spec.ids import ModelId

DEFAULTS: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0}
"""Of OpenAI's sampling parameters."""
DEFAULT_SEED = 42
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"

STORED_MESSAGES = ReferencedMessages(type="item_reference", item_reference="item.input")
"""The messages of a stored request."""


def sampling_of(source: DataSource, *, is_stored: bool) -> SamplingSpec | None:
    """Return how a run samples; None if it grades answers that exist.

    `is_stored`: the items are requests that were stored with their answers.
    """
    if isinstance(source, JsonlDataSource):
        return None
    if source.model is None:
        if source.input_messages is None:
            return None
        raise _missing("data_source.model")
    messages: InputMessages | None = source.input_messages
    if messages is None and is_stored:
        messages = STORED_MESSAGES
    if messages is None:
        raise _missing("data_source.input_messages")
    url, params = _params(source)
    check_params(url, params, "data_source.sampling_params")
    return SamplingSpec(url=url, model=source.model, input_messages=messages, params=params)


async def models_of(
    state: AppState, caller: Caller, graders: Mapping[str, Grader], asked: Mapping[str, str]
) -> dict[str, EvalModel]:
    """Return what the names of models mean: those of graders, and `asked` ones.

    Both are given by the field that names them. Raises the error of the first model that cannot
    answer, with its field.
    """
    names = {name for each in graders.values() for name in models_named_by(each)}
    external = {name: model for name in names if (model := state.endpoints.find(name))}
    models: dict[str, EvalModel] = {**external}
    models |= await require_models(state, caller, graders, besides=external)
    for field, name in asked.items():
        if name not in models:
            models[name] = await _model(state, caller, name, field)
    return models


async def _model(state: AppState, caller: Caller, name: str, field: str) -> EvalModel:
    external = state.endpoints.find(name)
    if external is not None:
        return external
    try:
        return batch_model(await answering_target(state, caller, ModelId(name)))
    except TunesmithError as error:
        error.param = field
        raise


def _params(source: CompletionsDataSource | ResponsesDataSource) -> tuple[Any, dict[str, Any]]:
    """Return the route and the fields of each request besides model and messages."""
    given = source.sampling_params
    params = {} if given is None else given.model_dump(exclude_none=True)
    params = DEFAULTS | params
    if isinstance(source, CompletionsDataSource):
        return CHAT, {"seed": DEFAULT_SEED} | params
    params.pop("seed", None)
    if "max_completion_tokens" in params:
        params["max_output_tokens"] = params.pop("max_completion_tokens")
    if isinstance(given, ResponseSampling) and given.reasoning_effort is not None:
        params["reasoning"] = {"effort": params.pop("reasoning_effort")}
    return RESPONSES, params


def check_params(url: str, params: dict[str, Any], field: str) -> None:
    """Raise InvalidRequest for parameters, below `field`, that no request could have."""
    messages = [{"role": "user", "content": "a"}]
    body = {**params, ("messages" if url == CHAT else "input"): messages}
    try:
        checked_body(url, body)
    except InvalidRequest as error:
        error.param = f"{field}.{error.param}"
        raise


def _missing(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Missing required parameter: {param!r}.", param=param, code="missing_required_parameter"
    )
