"""The lines of a batch: requests in the input file, answers in OpenAI's format."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from core.datasets.requests import request_lines
from core.errors import InvalidRequest, TunesmithError
from core.inference.endpoints import Engine, answer_in_background, checked_body
from core.inference.error_bodies import error_body, status_of
from core.inference.targets import target_of_resolved
from core.records.batch_progress import Tokens
from core.records.ids import new_id, new_line_id
from core.spec.batch import BatchModel, BatchRequest, RefusedModel
from core.spec.ids import ProjectId
from worker.answering.dispatch import Request

OK = 200


@dataclass(eq=False, kw_only=True)
class LineRequest(Request):
    """One line of the input file."""

    number: int
    custom_id: str


@dataclass(frozen=True)
class AnsweredLine:
    """One line of the output file, or of the error file."""

    number: int
    text: bytes
    is_error: bool
    tokens: Tokens


def requests_of(
    path: Path, batch: BatchRequest, project: ProjectId, answered: Container[int]
) -> Iterator[LineRequest]:
    """Yield the requests of a checked input file that are not answered yet, one in memory."""
    for number, row in rows_without_answer(path, answered):
        body = row["body"]
        model = batch.models.get(str(body.get("model")))
        yield LineRequest(
            target=target_of_resolved(model) if isinstance(model, BatchModel) else None,
            send=partial(_sent, batch.endpoint, body, model, project),
            number=number,
            custom_id=row["custom_id"],
        )


def rows_without_answer(
    path: Path, answered: Container[int]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the lines of a checked input file that are not answered yet, with their numbers."""
    for line in request_lines(path):
        if line.row is not None and line.number not in answered:
            yield line.number, line.row


async def _sent(
    url: str,
    body: Mapping[str, Any],
    model: BatchModel | RefusedModel | None,
    project: ProjectId,
    engine: Engine,
) -> tuple[int, Mapping[str, Any]]:
    """Return the status and body of the answer to a line. `model` is what its body names."""
    checked = checked_body(url, body)
    match model:
        case RefusedModel():
            return model.status, model.body
        case BatchModel():
            target = target_of_resolved(model)
            return OK, await answer_in_background(url, engine, target, project, checked)
    raise InvalidRequest("Missing required parameter: 'model'.", param="model")


def answered_line(request: LineRequest, status: int, body: Mapping[str, Any]) -> AnsweredLine:
    """Return the line of a response with any status."""
    response = {"status_code": status, "request_id": new_id("req"), "body": body}
    text = _line(request.custom_id, response=response, error=None)
    return AnsweredLine(request.number, text, status != OK, _tokens(body.get("usage")))


def refused_line(request: LineRequest, error: TunesmithError) -> AnsweredLine:
    """Return the line of a response that a direct request would get with this error."""
    status = status_of(error)
    body = error_body(status, error.message, param=error.param, code=error.code)
    return answered_line(request, status, body)


def unanswered_line(custom_id: str, code: str, message: str) -> bytes:
    """Return the line of a request that was never answered."""
    return _line(custom_id, response=None, error={"code": code, "message": message})


def _line(custom_id: str, **result: object) -> bytes:
    line = {"id": new_line_id(), "custom_id": custom_id, **result}
    return to_json(line) + b"\n"


def _tokens(usage: Any) -> Tokens:
    """Return the tokens of an answer; responses name them differently from completions."""
    if not isinstance(usage, Mapping):
        return Tokens()
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return Tokens(
        input=usage.get("prompt_tokens", usage.get("input_tokens", 0)),
        output=usage.get("completion_tokens", usage.get("output_tokens", 0)),
        reasoning=details.get("reasoning_tokens", 0),
    )
