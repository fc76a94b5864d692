"""What travels through the broker: wake-up calls, nothing else.

The database is the truth. A message says "there is work"; a lost, doubled or late one
changes nothing.
"""

TRAIN_TASK = "worker.train"
"""Name of the Celery task that claims and runs one job. Its only argument is the job's id."""

TRAIN_QUEUE = "train"
