"""The operations of the export routes."""

from functools import partial

from sqlalchemy.orm import Session
from starlette.responses import Response

from api.app_state import AppState, Transaction
from api.auth.caller import Caller
from api.downloads import Part, download
from api.exports.schemas import (
    CreateExport,
    DeletedExport,
    ExportObject,
    PushBody,
    export_object,
)
from api.pagination import ListOf, list_of
from api.repeats import remember
from core.catalog.describe import describe
from core.catalog.exports import form_of, require_exportable
from core.errors import Conflict, InvalidRequest, NotFound
from core.exports.gguf.support import require_family
from core.records import exports
from core.records.ids import TUNED_PREFIX
from core.records.models import pin_model, tuned_spec
from core.records.owned import get_owned
from core.records.tables import Task, TunedModel
from core.sealed import seal
from core.spec.base_model import BaseModelSpec
from core.spec.bundle import BundleRef
from core.spec.export import ExportOptions, ExportRequest, ExportResult, PushTarget
from core.spec.ids import ModelId, TaskId
from core.spec.tuned import TunedSpec
from core.tasks.kinds import Work


def create(
    transaction: Transaction, state: AppState, caller: Caller, name: ModelId, body: CreateExport
) -> ExportObject:
    """Check the options, and let a worker write the export."""
    session = transaction.session
    if not name.startswith(TUNED_PREFIX):
        raise InvalidRequest(
            "A base model is exported by its publisher; only tuned models are exported here.",
            param="model",
            code="model_not_tuned",
        )
    model = get_owned(session, TunedModel, caller.project, name)
    spec = tuned_spec(session, model)
    options = _options(body, spec)
    require_exportable(options, spec.strategy, spec.task)
    if options.format in ("gguf", "adapter-gguf"):
        _require_gguf(spec.base)
    token = None if body.push_to is None else _sealed(state, body.push_to)
    bundle = BundleRef(key=model.bundle_key, sha256=model.bundle_sha256)
    pin_model(session, caller.project, name, bundle)
    request = ExportRequest(
        model=name, base=BaseModelSpec.model_validate(model.base), bundle=bundle, options=options
    )
    task = exports.request_export(session, caller.project, request, token)
    session.refresh(task)
    transaction.after_commit(partial(state.broker.wake, Work(task.kind, task.id)))
    return remember(session, caller, export_object(task))


def find(
    session: Session, caller: Caller, name: ModelId, *, after: str | None, limit: int
) -> ListOf[ExportObject]:
    page = exports.list_exports(session, caller.project, name, after=after, limit=limit)
    return list_of(page, export_object)


def get(session: Session, caller: Caller, export_id: TaskId) -> ExportObject:
    return export_object(exports.get_export(session, caller.project, export_id))


def content(
    session: Session,
    state: AppState,
    caller: Caller,
    export_id: TaskId,
    path: str | None,
    wanted: str | None,
) -> Response:
    task = exports.get_export(session, caller.project, export_id)
    stored = _result(task).content
    if path is None:
        return download(
            state.store,
            stored.key,
            filename=f"{task.id}.zip",
            media_type="application/zip",
            wanted=wanted,
        )
    file = next((each for each in stored.files if each.path == path), None)
    if file is None:
        names = ", ".join(each.path for each in stored.files)
        raise NotFound(
            f"The export has no file {path[:200]!r}. Its files are {names}.", param="path"
        )
    name = path.rpartition("/")[2]
    part = Part(file.offset, file.bytes)
    return download(state.store, stored.key, filename=name, wanted=wanted, part=part)


def delete(
    transaction: Transaction, state: AppState, caller: Caller, export_id: TaskId
) -> DeletedExport:
    for key in exports.forget_export(transaction.session, caller.project, export_id):
        transaction.after_commit(partial(state.store.delete, key))
    return DeletedExport(id=export_id)


def _options(body: CreateExport, spec: TunedSpec) -> ExportOptions:
    """Return the options with the defaults of the format; InvalidRequest for those of others."""
    if body.quantization is not None and body.format != "gguf":
        raise _misplaced("quantization", "gguf has a quantization; nf4 and int8 are formats")
    if body.precision is not None and body.format in ("gguf", "adapter-gguf"):
        raise _misplaced("precision", "GGUF files have a quantization instead")
    form = form_of(body.format, body.form, spec.strategy)
    if body.precision is not None and form == "adapter":
        raise _misplaced("precision", "an adapter is written as it was trained")
    if body.merge_into is not None and (spec.strategy.type != "qlora" or form == "adapter"):
        raise _misplaced("merge_into", "only a qlora model that is merged has a choice of weights")
    gguf = (body.quantization or "f16") if body.format == "gguf" else None
    push = body.push_to
    return ExportOptions(
        format=body.format,
        form=form,
        precision=body.precision,
        quantization=gguf,
        merge_into=body.merge_into or "base",
        push_to=push and PushTarget(repository=push.repository, private=push.private),
    )


def _require_gguf(base: BaseModelSpec) -> None:
    """Refuse a family that llama.cpp does not know; a worker looks at bases that only it has."""
    if (facts := describe(base)) is not None:
        require_family({"model_type": facts.model_type, "architectures": ["ForCausalLM"]})


def _misplaced(param: str, reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"{param} does not apply to this export: {reason}.",
        param=param,
        code="contradictory_parameters",
    )


def _sealed(state: AppState, push: PushBody) -> str:
    key = state.settings.engine_key
    if state.settings.hub_offline or key is None:
        reason = (
            "the service may not use the hub (HF_HUB_OFFLINE)"
            if state.settings.hub_offline
            else "tokens are encrypted with TUNESMITH_ENGINE_KEY, which the operator must set"
        )
        raise InvalidRequest(
            f"Exports cannot be pushed: {reason}. Download the export and push it yourself.",
            param="push_to",
            code="push_not_available",
        )
    return seal(push.token, key)


def _result(task: Task) -> ExportResult:
    """Return the result of an export; Conflict `export_not_ready` without one."""
    if task.result is None:
        ended = task.finished_at is not None
        state = "has failed; its `error` says why" if ended else "has not ended; ask again later"
        raise Conflict(
            f"The export {task.id} has no content: it {state}.",
            param="export_id",
            code="export_not_ready",
        )
    return ExportResult.model_validate(task.result)
