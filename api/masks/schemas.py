"""What a mask audit looks like."""

from typing import Literal

from pydantic import BaseModel

from core.records.tables import MaskAudit
from core.spec.mask import MaskRow


class MaskError(BaseModel):
    code: str
    message: str
    param: str | None


class MaskObject(BaseModel):
    """The first rows of a training file, token by token, with what is trained on."""

    id: str
    object: Literal["fine_tuning.mask"] = "fine_tuning.mask"
    created_at: int
    status: Literal["queued", "succeeded", "failed"]
    training_file: str
    rows: list[MaskRow]
    error: MaskError | None


def mask_object(audit: MaskAudit) -> MaskObject:
    return MaskObject(
        id=audit.id,
        created_at=int(audit.created_at),
        status=_status(audit),
        training_file=audit.training_file,
        rows=[MaskRow.model_validate(row) for row in audit.rows or ()],
        error=None if audit.error is None else MaskError.model_validate(audit.error),
    )


def _status(audit: MaskAudit) -> Literal["queued", "succeeded", "failed"]:
    if audit.finished_at is None:
        return "queued"
    return "succeeded" if audit.error is None else "failed"
