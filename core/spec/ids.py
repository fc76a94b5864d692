"""Ids, one type each: mypy refuses a file's id where a job's is wanted."""

from typing import NewType

ProjectId = NewType("ProjectId", str)
KeyId = NewType("KeyId", str)
FileId = NewType("FileId", str)
JobId = NewType("JobId", str)
CheckpointId = NewType("CheckpointId", str)
ModelId = NewType("ModelId", str)
"""Of whatever can be asked: a base, a tuned model or a checkpoint of one."""
CompletionId = NewType("CompletionId", str)
"""Of a chat completion."""
ResponseId = NewType("ResponseId", str)
TaskId = NewType("TaskId", str)
BatchId = NewType("BatchId", str)
EvalId = NewType("EvalId", str)
EvalRunId = NewType("EvalRunId", str)
EvalItemId = NewType("EvalItemId", str)
"""Of the result of an item of an eval run."""
SweepId = NewType("SweepId", str)
DistillationId = NewType("DistillationId", str)
MaskId = NewType("MaskId", str)
"""Of a mask: the id of a job, or of a task."""
