"""Evals, their runs, and the results of the items of these."""

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Owned, rows_where
from core.spec.ids import EvalId, EvalItemId, EvalRunId, FileId


class Eval(Owned):
    """What is tested and how: the shape of the items, and the testing criteria."""

    __tablename__ = "evals"
    __table_args__ = (
        Index(None, "project_id", "created_at", "id"),
        Index(None, "project_id", "updated_at", "id"),
    )

    noun = "eval"
    id_param = "eval_id"

    id: Mapped[EvalId] = mapped_column(primary_key=True)
    updated_at: Mapped[float]
    name: Mapped[str] = mapped_column(Text)
    user_metadata: Mapped[dict[str, Any] | None]
    data_source_config: Mapped[dict[str, Any]]
    """As it was requested."""
    criteria: Mapped[list[dict[str, Any]]]
    """Each a `core.spec.grader.Grader`."""


class EvalRun(Owned):
    """Items that are answered and graded. `core.records.eval_runs` writes `status`.

    A task of the kind `eval_run`, whose subject is the run, does the work. `finished_at` is set if
    and only if the status is final.
    """

    __tablename__ = "eval_runs"
    __table_args__ = (
        Index(None, "eval_id", "created_at", "id"),
        Index("ix_eval_runs_unfinished", "file_id", **rows_where("finished_at IS NULL")),
    )

    noun = "eval run"
    id_param = "run_id"

    id: Mapped[EvalRunId] = mapped_column(primary_key=True)
    eval_id: Mapped[EvalId] = mapped_column(ForeignKey("evals.id", ondelete="CASCADE"))
    status: Mapped[str]
    """A `core.spec.evals.EvalRunStatus`."""
    name: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None]
    """The resolved id of the model that answers; None if the items have the answers."""
    user_metadata: Mapped[dict[str, Any] | None]
    data_source: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    """As it was requested."""
    file_id: Mapped[FileId | None]
    """The file of the items; None if they are in a blob of the run."""
    blob_key: Mapped[str]
    """Of the items."""
    fields: Mapped[list[str]] = mapped_column(JSON, deferred=True)
    """The fields of the items, which are columns of the report."""
    error: Mapped[dict[str, Any] | None]
    """`{code, message}` of a failed run."""
    finished_at: Mapped[float | None]

    total: Mapped[int]
    passed: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    errored: Mapped[int] = mapped_column(default=0)
    criteria_counts: Mapped[list[dict[str, Any]]]
    """`{passed, failed}` of each criterion."""
    usage: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    """Tokens of each model: a `core.records.model_usage.ModelUsage`."""


class EvalRunItem(Owned):
    """The result of one item of a run."""

    __tablename__ = "eval_run_items"
    __table_args__ = (
        UniqueConstraint("run_id", "number"),
        Index(None, "run_id", "created_at", "id"),
    )

    noun = "output item"
    id_param = "output_item_id"

    id: Mapped[EvalItemId] = mapped_column(primary_key=True)
    run_id: Mapped[EvalRunId] = mapped_column(ForeignKey("eval_runs.id", ondelete="CASCADE"))
    number: Mapped[int]
    """The position of the item in its source, from 0."""
    status: Mapped[str]
    """A `core.spec.evals.ItemStatus`."""
    bytes: Mapped[int]
    """Of `body`, as JSON."""
    body: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    """`datasource_item`, `results` and `sample`, as OpenAI shows them."""
