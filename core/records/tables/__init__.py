"""Every table, by subject. Migrations compare the database with these and nothing else.

Times are Unix seconds (double). Every row names its project: another project's row is
never found (`core.records.owned`). Lists run newest first over (created_at, id), which is why
those pairs are indexed.
"""

from core.records.tables.base import Leased, Owned, Table
from core.records.tables.files import File, Project
from core.records.tables.jobs import Job, JobEvent, JobMetadata
from core.records.tables.masks import JobMask
from core.records.tables.models import Checkpoint, TunedModel
from core.records.tables.outbox import OutboxMessage
from core.records.tables.processes import RegisteredEngine, Worker
from core.records.tables.tasks import Task

__all__ = [
    "Checkpoint",
    "File",
    "Job",
    "JobEvent",
    "JobMask",
    "JobMetadata",
    "Leased",
    "OutboxMessage",
    "Owned",
    "Project",
    "RegisteredEngine",
    "Table",
    "Task",
    "TunedModel",
    "Worker",
]
