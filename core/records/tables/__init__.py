"""All tables, by subject. Migrations compare the database only with these.

Times are Unix seconds (double). Every row has its project, and queries find only rows of one
project (`core.records.owned`). Lists are sorted by (created_at, id), so these pairs are indexed.
"""

from core.records.tables.base import Leased, Owned, Table
from core.records.tables.bases import CatalogBase, WorkerBase
from core.records.tables.batches import Batch, BatchPart
from core.records.tables.completions import StoredCompletion, StoredCompletionMetadata
from core.records.tables.distillations import Distillation, DistillationRow
from core.records.tables.evals import Eval, EvalRun, EvalRunItem
from core.records.tables.files import File, Project
from core.records.tables.jobs import Job, JobEvent, JobMetadata
from core.records.tables.masks import JobMask
from core.records.tables.models import Checkpoint, TunedModel
from core.records.tables.outbox import OutboxMessage
from core.records.tables.processes import RegisteredEngine, Worker
from core.records.tables.remembered import RememberedRequest
from core.records.tables.responses import OutputItem, ResponseEvents, StoredResponse
from core.records.tables.sweeps import Sweep, SweepTrial
from core.records.tables.tasks import Task
from core.records.tables.verdicts import StoredVerdict

__all__ = [
    "Batch",
    "BatchPart",
    "CatalogBase",
    "Checkpoint",
    "Distillation",
    "DistillationRow",
    "Eval",
    "EvalRun",
    "EvalRunItem",
    "File",
    "Job",
    "JobEvent",
    "JobMask",
    "JobMetadata",
    "Leased",
    "OutboxMessage",
    "OutputItem",
    "Owned",
    "Project",
    "RegisteredEngine",
    "RememberedRequest",
    "ResponseEvents",
    "StoredCompletion",
    "StoredCompletionMetadata",
    "StoredResponse",
    "StoredVerdict",
    "Sweep",
    "SweepTrial",
    "Table",
    "Task",
    "TunedModel",
    "Worker",
    "WorkerBase",
]
