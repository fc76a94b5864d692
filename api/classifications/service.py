"""Classifies texts: finds the model, sends the request to an engine, and converts the response."""

from api.app_state import AppState
from api.auth.caller import Caller
from api.classifications.schemas import ClassificationBody, Classifications, TargetScores
from api.models.first_use import answering_target
from core.records.ids import new_id
from core.spec.classification import ClassificationRequest
from core.spec.engine_calls import CLASSIFY

TARGET = "label"
"""The name of the only target, as in datasets."""


async def classify(state: AppState, caller: Caller, body: ClassificationBody) -> Classifications:
    target = await answering_target(state, caller, body.model)
    request = ClassificationRequest(
        id=new_id("clsf"),
        base=target.base,
        adapter=target.adapter,
        serving=target.serving,
        texts=(body.input,) if isinstance(body.input, str) else tuple(body.input),
        project=caller.project,
    )
    answer = await state.engines.ask(CLASSIFY, request)
    return Classifications(
        id=request.id,
        model=target.id,
        results=[{TARGET: TargetScores(scores=scores)} for scores in answer.scores],
    )
