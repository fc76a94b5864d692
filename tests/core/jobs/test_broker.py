"""Sending, and what happens when the broker is unavailable."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.jobs.broker import FOLDER_SCHEME, Broker, celery_app
from core.jobs.messages import WORK_TASK
from core.tasks.kinds import JOB, Queue, Work

ONE = Work(JOB, "ftjob-1")


@pytest.fixture(params=["folder", "redis"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return f"{FOLDER_SCHEME}{tmp_path / 'broker'}"
    url: str = request.getfixturevalue("redis_url")
    return url


@pytest.fixture
def dead_redis_url() -> Iterator[str]:
    """A port that is taken but on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}/0"


@pytest.mark.parametrize(
    ("work", "queue_name"),
    [(Work(JOB, "ftjob-1"), Queue.DEVICE), (Work("mask_audit", "mask-1"), Queue.LIGHT)],
)
def test_wake_up_call_names_the_work_in_the_queue_of_its_kind(
    broker_url: str, work: Work, queue_name: Queue
) -> None:
    broker = Broker(broker_url)
    broker.check()
    broker.wake(work)
    with celery_app(broker_url).connection_for_read() as connection:
        queue = connection.SimpleQueue(queue_name)
        message = queue.get(timeout=60)
        message.ack()
        queue.close()
    assert message.headers["task"] == WORK_TASK
    assert message.payload[0] == [work.kind, work.id]


def test_absent_broker_is_unavailable_and_not_waited_for(dead_redis_url: str) -> None:
    broker = Broker(dead_redis_url)
    for attempt in (broker.check, lambda: broker.wake(ONE)):
        with pytest.raises(Unavailable, match="broker is unavailable") as refusal:
            attempt()
        assert refusal.value.retry_after_seconds > 0


def test_silent_broker_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis that accepts connections and never answers, as a stopped process does."""
    monkeypatch.setattr("core.jobs.broker.SEND_TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = Broker(f"redis://127.0.0.1:{server.getsockname()[1]}/0")
        for attempt in (broker.check, lambda: broker.wake(ONE)):
            with pytest.raises(Unavailable, match="broker is unavailable"):
                attempt()


def test_sender_outlives_a_broker_that_forgets_everything(redis_url: str) -> None:
    import redis

    broker = Broker(redis_url)
    broker.wake(ONE)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        client.client_kill_filter(_type="normal", skipme=True)
    with redis.Redis.from_url(redis_url) as client:
        for number in (2, 3):
            try:
                broker.wake(Work(JOB, f"ftjob-{number}"))
            except Unavailable:
                broker.wake(
                    Work(JOB, f"ftjob-{number}")
                )  # the first send may only find the connection dead
        assert client.llen(Queue.DEVICE) == 2
