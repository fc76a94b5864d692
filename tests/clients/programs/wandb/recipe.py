"""The metrics of a job in Weights & Biases, offline: in a folder."""

import os

from openai import OpenAI
from wandb.integration.openai.fine_tuning import WandbLogger

WandbLogger.sync(
    fine_tune_job_id=os.environ["JOB"], openai_client=OpenAI(), project="weather", mode="offline"
)

# checks
import json  # noqa: E402
from pathlib import Path  # noqa: E402

from wandb.proto import wandb_internal_pb2  # noqa: E402
from wandb.sdk.internal.datastore import DataStore  # noqa: E402

(path,) = Path("wandb").glob("offline-run-*/run-*.wandb")
store = DataStore()
store.open_for_scan(str(path))
rows, config = [], {}
while (data := store.scan_data()) is not None:
    record = wandb_internal_pb2.Record.FromString(data)
    if record.HasField("history"):
        items = record.history.item
        rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    for update in record.config.update:
        config[update.key] = json.loads(update.value_json)
assert any("train_loss" in row for row in rows), rows[:3]
assert os.environ["JOB"] in json.dumps(config), config
