"""Eval runs in a workshop: creation as the API does it, and attempts that are killed."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import delete

from core.records.eval_runs import EVAL_RUN, NewEvalRun, create_run, items_from, run_blob_key
from core.records.evals import NewEval, create_eval
from core.records.ids import new_eval_run_id
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT, ensure_project
from core.records.tables import Eval, EvalRun, EvalRunItem, Task
from core.spec.batch import BatchModel
from core.spec.evals import EvalModel, EvalRunRequest, SamplingSpec
from core.spec.grader import Grader
from tests.api.scripted_engine import ANSWER
from tests.worker.killed_attempts import attempt_task_until
from tests.worker.workshop import TINY, Workshop
from worker.answering import journal

GRADERS: TypeAdapter[tuple[Grader, ...]] = TypeAdapter(tuple[Grader, ...])

EXACT = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.expected}}",
    "operation": "eq",
}
TEMPLATE = {"type": "template", "template": [{"role": "user", "content": "{{item.question}}"}]}
MODELS: dict[str, EvalModel] = {"tiny": BatchModel(id=TINY.id, base=TINY, adapter=None)}


def asked(*questions: str) -> list[dict[str, Any]]:
    return [{"item": {"question": each, "expected": ANSWER}} for each in questions]


def answered(*texts: str) -> list[dict[str, Any]]:
    return [{"item": {"expected": "4"}, "sample": {"output_text": text}} for text in texts]


def sampling(**changes: Any) -> SamplingSpec:
    good = {
        "url": "/v1/chat/completions",
        "model": "tiny",
        "input_messages": TEMPLATE,
        "params": {"temperature": 0.0, "seed": 42},
    }
    return SamplingSpec.model_validate(good | changes)


def create(
    workshop: Workshop,
    rows: Sequence[dict[str, Any]],
    *criteria: dict[str, Any],
    sampled: SamplingSpec | None = None,
    models: dict[str, EvalModel] = MODELS,
) -> str:
    """Create an eval and a run of these rows; return the run's id."""
    graders = GRADERS.validate_python(criteria or (EXACT,))
    run_id = new_eval_run_id()
    key = run_blob_key(run_id)
    workshop.store.write(key, [json.dumps(row).encode() + b"\n" for row in rows])
    with workshop.database.writing() as session:
        ensure_project(session)
        dumped = [grader.model_dump(mode="json") for grader in graders]
        config = {"type": "custom", "item_schema": {}, "include_sample_schema": True}
        eval_ = create_eval(session, NewEval(DEFAULT_PROJECT, None, None, config, dumped))
        new = NewEvalRun(
            DEFAULT_PROJECT, eval_.id, run_id, None, None, None, {}, None, len(rows), []
        )
        request = EvalRunRequest(
            run_id=run_id, blob_key=key, criteria=graders, sampling=sampled, models=models
        )
        create_run(session, new, request)
    return run_id


def attempt_until(workshop: Workshop, point: int | None) -> int | None:
    """Claim the run and work up to a point; return the points passed, None if it ended."""
    return attempt_task_until(workshop, EVAL_RUN, journal, point)


def run_of(workshop: Workshop, run_id: str) -> EvalRun:
    with workshop.database.reading() as session:
        return get_owned(session, EvalRun, DEFAULT_PROJECT, run_id)


def items_of(workshop: Workshop, run_id: str) -> list[EvalRunItem]:
    """Return the results in the order of the rows."""
    with workshop.database.reading() as session:
        return list(items_from(session, DEFAULT_PROJECT, run_id, 0, 10_000))


def forget(workshop: Workshop) -> None:
    with workshop.database.writing() as session:
        for table in (EvalRunItem, EvalRun, Eval, Task):
            session.execute(delete(table))
