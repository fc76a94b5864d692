"""Classifies texts: finds the model, sends the request to an engine, and converts the response."""

from api.classifications.schemas import ClassificationBody, Classifications, TargetScores
from api.models.first_use import answering_target
from api.parts import Parts
from core.records.ids import new_id
from core.spec.classification import ClassificationRequest

TARGET = "label"
"""The name of the only target, as in datasets."""


async def classify(parts: Parts, project: str, body: ClassificationBody) -> Classifications:
    target = await answering_target(parts, project, body.model)
    request = ClassificationRequest(
        id=new_id("clsf"),
        base=target.base,
        adapter=target.adapter,
        serving=target.serving,
        texts=(body.input,) if isinstance(body.input, str) else tuple(body.input),
        project=project,
    )
    answer = await parts.engines.classify(request)
    return Classifications(
        id=request.id,
        model=target.id,
        results=[{TARGET: TargetScores(scores=scores)} for scores in answer.scores],
    )
