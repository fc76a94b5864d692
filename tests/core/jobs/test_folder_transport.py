"""The embedded broker: every message to exactly one of several consumers, whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kombu import Connection

from core.jobs.broker import FOLDER_SCHEME, Broker, celery_app
from core.jobs.messages import TRAIN_QUEUE

ROOT = Path(__file__).parents[3]

MESSAGES = 150
CONSUMERS = 3
SENDERS = 2

CONSUME = """
import sys
from core.jobs.broker import celery_app

connection = celery_app(sys.argv[1]).connection_for_read()
queue = connection.SimpleQueue("train")
print("ready", flush=True)
while True:
    message = queue.get(timeout=100)
    message.ack()
    if message.payload[0][0] == "stop":
        break
    print(message.payload[0][0], flush=True)
connection.release()
"""

SEND = f"""
import sys
from core.jobs.broker import Broker

broker = Broker(sys.argv[1])
for number in range({MESSAGES}):
    broker.wake(f"{{sys.argv[2]}}-{{number}}")
"""


@pytest.fixture
def broker_url(tmp_path: Path) -> str:
    return f"{FOLDER_SCHEME}{tmp_path / 'broker'}"


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_share_messages_without_loss_or_double(broker_url: str, tmp_path: Path) -> None:
    consumers = [start(CONSUME, broker_url) for _ in range(CONSUMERS)]
    for consumer in consumers:
        assert consumer.stdout is not None
        assert consumer.stdout.readline() == "ready\n"
    senders = [start(SEND, broker_url, str(number)) for number in range(SENDERS)]
    for sender in senders:
        _, errors = sender.communicate(timeout=120)
        assert sender.returncode == 0, errors
    for _ in consumers:
        Broker(broker_url).wake("stop")  # the last in line: each consumer takes one
    received: list[list[str]] = []
    for consumer in consumers:
        output, errors = consumer.communicate(timeout=120)
        assert consumer.returncode == 0, errors
        received.append(output.split())
    everything = [name for names in received for name in names]
    sent = [f"{sender}-{number}" for sender in range(SENDERS) for number in range(MESSAGES)]
    assert sorted(everything) == sorted(sent)
    assert sum(bool(names) for names in received) > 1, "one consumer did all the work"
    assert list((tmp_path / "broker" / "messages").iterdir()) == []


def test_messages_come_in_the_order_of_sending(broker_url: str) -> None:
    broker = Broker(broker_url)
    for number in range(5):
        broker.wake(str(number))
    with celery_app(broker_url).connection_for_read() as connection:
        queue = connection.SimpleQueue(TRAIN_QUEUE)
        messages = [queue.get(timeout=60) for _ in range(5)]
        for message in messages:
            message.ack()
        queue.close()
    assert [message.payload[0][0] for message in messages] == ["0", "1", "2", "3", "4"]


def test_half_written_message_is_never_read(broker_url: str, tmp_path: Path) -> None:
    """What lies in the folder under a temporary name does not exist for a consumer."""
    Broker(broker_url).wake("whole")
    folder = tmp_path / "broker" / "messages"
    [whole] = folder.iterdir()
    assert json.loads(whole.read_text())["properties"]
    (folder / f".writing-0.{TRAIN_QUEUE}.msg").write_text("{")
    (folder / f".taken-0.{TRAIN_QUEUE}.msg").write_text("")
    with celery_app(broker_url).connection_for_read() as connection:
        queue = connection.SimpleQueue(TRAIN_QUEUE)
        assert isinstance(connection, Connection)
        assert queue.qsize() == 1
        message = queue.get(timeout=60)
        message.ack()
        queue.close()
    assert message.payload[0][0] == "whole"
