"""Every table, by subject. Migrations compare the database with these and nothing else.

Times are Unix seconds (double). Every row names its project: another project's row is
never found. Lists run newest first over (created_at, id), which is why those pairs are
indexed.
"""

from core.records.tables.base import Table
from core.records.tables.files import File, Project
from core.records.tables.jobs import Job, JobEvent, JobMetadata
from core.records.tables.masks import MaskAudit
from core.records.tables.models import Checkpoint, TunedModel
from core.records.tables.outbox import OutboxMessage
from core.records.tables.processes import RegisteredEngine, Worker
from core.records.tables.speed import SpeedTest

__all__ = [
    "Checkpoint",
    "File",
    "Job",
    "JobEvent",
    "JobMetadata",
    "MaskAudit",
    "OutboxMessage",
    "Project",
    "RegisteredEngine",
    "SpeedTest",
    "Table",
    "TunedModel",
    "Worker",
]
