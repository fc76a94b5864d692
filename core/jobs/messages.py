"""The messages in the broker: only wake-ups.

The database is the source of truth. A lost, duplicated or late message changes nothing.
"""

WORK_TASK = "worker.work"
"""The Celery task that claims and runs waiting work. Arguments: kind and id of the work.

It is sent to the queue of the kind, `core.tasks.kinds.Queue`.
"""
