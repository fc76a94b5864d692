"""The operations of the routes of evals; `run_service.py` has those of their runs."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter
from sqlalchemy.orm import Session

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.evals.schemas import (
    CreateEval,
    CustomConfig,
    DeletedEval,
    EvalObject,
    UpdateEval,
    eval_object,
)
from api.files.checking import schema_fault
from api.pagination import ListOf, list_of
from api.repeats import remember
from core.errors import InvalidRequest
from core.grading.validate import check_grader, require_json
from core.records import evals
from core.records.evals import NewEval, SortedBy
from core.records.owned import get_owned
from core.records.pages import Order
from core.records.tables import Eval
from core.spec.evals import MAX_SCHEMA_BYTES
from core.spec.grader import Grader, TextSimilarityGrader
from core.spec.ids import EvalId
from core.storage.blobs import BlobStore

GRADERS: TypeAdapter[tuple[Grader, ...]] = TypeAdapter(tuple[Grader, ...])

SIMILARITY_THRESHOLD = 0.5
"""Of a text similarity without one, which OpenAI's objects always have."""


def create(state: AppState, caller: Caller, body: CreateEval) -> EvalObject:
    require_text(body)
    config = body.data_source_config
    has_sample = True
    if isinstance(config, CustomConfig):
        _check_schema(state, config.item_schema)
        has_sample = config.include_sample_schema
    for number, grader in enumerate(body.testing_criteria):
        _check_criterion(grader, f"testing_criteria[{number}]", has_sample)
    new = NewEval(
        project_id=caller.project,
        name=body.name,
        user_metadata=body.metadata,
        data_source_config=config.model_dump(mode="json"),
        criteria=[_with_threshold(grader) for grader in body.testing_criteria],
    )
    with state.transaction() as transaction:
        session = transaction.session
        return remember(session, caller, eval_object(evals.create_eval(session, new)))


def require_text(body: BaseModel, **left_out: Any) -> None:
    """Raise InvalidRequest with the first field of a body that JSON and the database cannot have.

    `left_out` is what is checked elsewhere, as pydantic's `exclude` has it.
    """
    for field, value in body.model_dump(exclude=left_out).items():
        require_json(value, field)


def _check_schema(state: AppState, schema: dict[str, Any]) -> None:
    """Raise InvalidRequest for a JSON schema that no item can be validated with."""
    param = "data_source_config.item_schema"
    length = len(json.dumps(schema, ensure_ascii=False).encode())
    if length > MAX_SCHEMA_BYTES:
        raise InvalidRequest(
            f"The item schema has {length} bytes; at most {MAX_SCHEMA_BYTES} are allowed.",
            param=param,
            code="invalid_value",
        )
    fault = schema_fault(state, schema)
    if fault is not None:
        raise InvalidRequest(
            f"The item schema is not a valid JSON Schema: {fault}.",
            param=param,
            code="invalid_schema",
        )


def _check_criterion(grader: Grader, path: str, has_sample: bool) -> None:
    try:
        check_grader(grader, path, has_sample=has_sample)
    except InvalidRequest as error:
        if not has_sample and error.code == "invalid_template" and "sample" in error.message:
            error.message += (
                " To grade answers, set data_source_config.include_sample_schema to true."
            )
        raise


def _with_threshold(grader: Grader) -> dict[str, Any]:
    criterion: dict[str, Any] = grader.model_dump(mode="json", exclude_none=True)
    if isinstance(grader, TextSimilarityGrader):
        criterion.setdefault("pass_threshold", SIMILARITY_THRESHOLD)
    return criterion


def find(
    session: Session,
    caller: Caller,
    *,
    after: str | None,
    limit: int,
    order: Order,
    order_by: SortedBy,
) -> ListOf[EvalObject]:
    page = evals.list_evals(
        session, caller.project, after=after, limit=limit, order=order, sorted_by=order_by
    )
    return list_of(page, eval_object)


def get(session: Session, caller: Caller, eval_id: EvalId) -> EvalObject:
    return eval_object(get_owned(session, Eval, caller.project, eval_id))


def update(
    transaction: Transaction, caller: Caller, eval_id: EvalId, body: UpdateEval
) -> EvalObject:
    """Set the fields that the body has. A name cannot be removed."""
    require_text(body)
    changes: dict[str, Any] = {}
    if body.name is not None:
        changes["name"] = body.name
    if "metadata" in body.model_fields_set:
        changes["user_metadata"] = body.metadata
    return eval_object(evals.update_eval(transaction.session, caller.project, eval_id, changes))


def delete(
    transaction: Transaction, caller: Caller, eval_id: EvalId, store: BlobStore
) -> DeletedEval:
    """Delete an eval with its runs; those that have not ended stop."""
    keys = evals.delete_eval(transaction.session, caller.project, eval_id)
    transaction.after_commit(lambda: _delete_blobs(store, keys))
    return DeletedEval(eval_id=eval_id)


def _delete_blobs(store: BlobStore, keys: Sequence[str]) -> None:
    for key in keys:
        store.delete(key)
