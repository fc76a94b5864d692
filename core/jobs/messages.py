"""What travels through the broker: wake-up calls, nothing else.

The database is the truth. A message says "there is work"; a lost, doubled or late one
changes nothing.
"""

WORK_TASK = "worker.work"
"""Name of the Celery task that claims and does what waits. Arguments: kind and id of the work.

It is sent to the queue of the work's kind, `core.tasks.kinds.Queue`.
"""
