"""Asks the teacher for the answers to one prompt."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from core.distillation.candidates import Answered, Candidate, candidate_of, reason, unanswered
from core.errors import TunesmithError
from core.evals.messages import request_body
from core.evals.results import usage_of
from core.evals.samples import sample_of_row
from core.inference.endpoints import checked_body
from core.records.distillation_progress import RowResult
from core.records.model_usage import ModelUsage
from core.spec.distillation import DistillationRequest
from worker.coroutines import wait_for_all

logger = logging.getLogger(__name__)

FAILED = "The service failed."
NO_ANSWER = "The prompt has no answer, and no teacher is asked."

Ask = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Returns the object that answers a body at a URL, by the model that the body names."""


class Teacher:
    """Makes rows of the prompts of one distillation. Whatever fails is a reason in the row."""

    def __init__(self, request: DistillationRequest, ask: Ask) -> None:
        self._request = request
        self._ask = ask

    async def answers(self, number: int, row: Mapping[str, Any]) -> RowResult:
        usage: list[ModelUsage] = []
        item = dict(row["item"])
        try:
            body = self._body(item)
        except TunesmithError as error:
            why = reason(error.code or "invalid_prompt", error.message)
            prompt = Answered(item=item, messages=(), reason=why)
        else:
            prompt = Answered(
                item=item,
                messages=tuple(body["messages"]),
                tools=tuple(body.get("tools") or ()),
                candidates=tuple(await self._candidates(row, body, usage)),
            )
        return row_result(number, prompt, usage)

    def _body(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request. The tools of a prompt are offered, if the sampling names none."""
        sampling = self._request.sampling
        body = request_body(sampling, item)
        if isinstance(item.get("tools"), list) and item["tools"]:
            body.setdefault("tools", item["tools"])
        checked_body(sampling.url, body)
        return body

    async def _candidates(
        self, row: Mapping[str, Any], body: Mapping[str, Any], usage: list[ModelUsage]
    ) -> list[Candidate]:
        if not self._request.is_asked:
            return [_given(row, body)]
        numbers = range(self._request.samples)
        return await wait_for_all([self._candidate(number, body, usage) for number in numbers])

    async def _candidate(
        self, number: int, body: Mapping[str, Any], usage: list[ModelUsage]
    ) -> Candidate:
        """Ask for one answer. A seed gives other answers to each number."""
        seed = {} if body.get("seed") is None else {"seed": body["seed"] + number}
        try:
            completion = await self._ask(self._request.sampling.url, {**body, **seed})
            usage.append(usage_of(completion))
            names = self._request.teacher_names
            return candidate_of(number, completion, names, body.get("tools") or ())
        except TunesmithError as error:
            return unanswered(number, error.code, error.message)
        except Exception:
            logger.exception("An answer of %s failed.", self._request.distillation_id)
            return unanswered(number, None, FAILED)


def row_result(number: int, prompt: Answered, usage: list[ModelUsage]) -> RowResult:
    """Return the row of a prompt."""
    why = prompt.why
    return RowResult(
        number=number,
        status=prompt.status,
        reason=None if why is None else why.code,
        kept=sum(each.status == "kept" for each in prompt.candidates),
        usage=usage,
        body=prompt.model_dump(mode="json"),
    )


def _given(row: Mapping[str, Any], body: Mapping[str, Any]) -> Candidate:
    """Return the answer that a prompt has."""
    sample = sample_of_row(row)
    if sample is None or not sample.choices:
        return unanswered(0, "no_sample", NO_ANSWER)
    completion = {"choices": sample.choices, "model": row["sample"].get("model")}
    return candidate_of(0, completion, (), body.get("tools") or ())
