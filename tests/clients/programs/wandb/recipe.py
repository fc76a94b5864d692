"""A job in Weights & Biases."""

import os

from openai import OpenAI
from wandb.integration.openai.fine_tuning import WandbLogger

synced = WandbLogger.sync(
    fine_tune_job_id=os.environ["JOB"], openai_client=OpenAI(), project="weather", mode="disabled"
)

# checks
# Offline, W&B writes the run into a folder, and stops at the files: it uses artifacts only online.
import json  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

from wandb.proto.wandb_internal_pb2 import Record  # noqa: E402


def records(log: bytes) -> Iterator[Record]:
    """Read LevelDB's log format: blocks of 32 KiB with the parts of records, after 7 bytes."""
    position, parts = 7, b""
    while position + 7 <= len(log):
        if 2**15 - position % 2**15 < 7:  # no room for the head of a part
            position += 2**15 - position % 2**15
        size, kind = int.from_bytes(log[position + 4 : position + 6], "little"), log[position + 6]
        parts += log[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


assert synced.endswith("completed successfully"), synced
try:
    WandbLogger.sync(
        fine_tune_job_id=os.environ["JOB"],
        openai_client=OpenAI(),
        project="weather",
        mode="offline",
    )
except TypeError as refusal:
    assert "offline mode" in str(refusal)
(path,) = Path("wandb").glob("offline-run-*/run-*.wandb")
rows, config = [], {}
for record in records(path.read_bytes()):
    if record.HasField("history"):
        items = record.history.item
        rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    for update in record.config.update:
        config[update.key] = json.loads(update.value_json)
assert any("train_loss" in row for row in rows), rows[:3]
assert os.environ["JOB"] in json.dumps(config), config
