"""All answers of a distillation with their scores, as CSV or JSONL: one line per answer."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.distillation.candidates import Answered, Candidate
from core.evals.report import csv_line

_COLUMNS = ("prompt", "candidate", "status", "reason", "message", "score")
_TEXTS = ("finish_reason", "model", "question", "answer", "tool_calls")


def jsonl_lines(number: int, body: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the lines of a prompt; one without an answer if it could not be asked."""
    prompt = Answered.model_validate(body)
    shared = {
        "prompt": number,
        "item": prompt.item,
        "messages": list(prompt.messages),
        "tools": list(prompt.tools),
    }
    for each in _candidates(prompt):
        own = each.model_dump(mode="json", exclude={"number"})
        line = {**shared, "candidate": each.number, **own}
        yield json.dumps(line, ensure_ascii=False).encode(errors="replace") + b"\n"


class CsvCandidates:
    """Writes the lines of one report; `graders` are their names in results."""

    def __init__(self, graders: Sequence[str]) -> None:
        self._graders = graders

    def head(self) -> bytes:
        scores = [f"{name}.{what}" for name in self._graders for what in ("score", "passed")]
        return csv_line([*_COLUMNS, *scores, *_TEXTS])

    def lines(self, number: int, body: Mapping[str, Any]) -> Iterator[bytes]:
        prompt = Answered.model_validate(body)
        for each in _candidates(prompt):
            yield csv_line([number, each.number, *self._cells(prompt, each)])

    def _cells(self, prompt: Answered, each: Candidate) -> list[Any]:
        why, message = each.reason, each.message or {}
        scores = {score.name: score for score in each.scores}
        cells: list[Any] = [each.status]
        cells += [None, None] if why is None else [why.code, why.message]
        cells.append(each.score)
        for name in self._graders:
            score = scores.get(name)
            cells += [None, None] if score is None else [score.score, score.passed]
        question = prompt.messages[-1].get("content") if prompt.messages else None
        cells += [each.finish_reason, each.model, question]
        return [*cells, message.get("content"), message.get("tool_calls")]


def _candidates(prompt: Answered) -> Sequence[Candidate]:
    if prompt.candidates:
        return prompt.candidates
    return (Candidate(number=0, status="failed", reason=prompt.reason),)
