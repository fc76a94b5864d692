"""The Celery application, configured for either broker.

`folder:///path` is the embedded broker, a folder on this machine; `redis://…` is Redis.
Tasks are sent by name, so the sender needs no worker code.
"""

from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Queue as CeleryQueue
from kombu.exceptions import OperationalError

from core.errors import Unavailable
from core.jobs.messages import WORK_TASK
from core.tasks.kinds import Queue, Work

FOLDER_SCHEME = "folder://"

CONNECT_TIMEOUT_SECONDS = 2.0
SEND_TIMEOUT_SECONDS = 5.0

POLL_SECONDS = 0.1
"""Between two looks of a worker into a folder. A look takes half a millisecond of a core, which the
threads of a run wait for."""


def celery_app(broker_url: str) -> Celery:
    """Build the application; it connects at the first message."""
    app = Celery("tunesmith")
    app.conf.update(
        task_queues=[CeleryQueue(queue, routing_key=queue) for queue in Queue],
        task_default_queue=Queue.DEVICE,
        task_default_routing_key=Queue.DEVICE,
        task_ignore_result=True,
        # Messages may be duplicated, so late acknowledgement is safe. With early acknowledgement, a
        # busy worker could hold a second message while another worker is idle.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=CONNECT_TIMEOUT_SECONDS,
        **_transport(broker_url),
    )
    return app


class Broker:
    """Sends wake-up messages. Fails fast if the broker is unavailable: the outbox retries."""

    def __init__(self, broker_url: str) -> None:
        self._app = celery_app(broker_url)
        self._failures = _failures(broker_url)
        # Without these, kombu retries the connection forever before it publishes.
        self._app.conf.broker_transport_options |= {
            "max_retries": 0,
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "socket_timeout": SEND_TIMEOUT_SECONDS,
        }

    def wake(self, work: Work) -> None:
        """Wake the workers of the queue of `work`; Unavailable if the broker does not respond."""
        try:
            self._app.send_task(WORK_TASK, args=[work.kind, work.id], queue=work.queue, retry=False)
        except self._failures as error:
            raise Unavailable(f"The broker is unavailable: {error}") from error

    def check(self) -> None:
        """Return if the broker responds; otherwise raise Unavailable."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=0, timeout=CONNECT_TIMEOUT_SECONDS)
        except self._failures as error:
            raise Unavailable(f"The broker is unavailable: {error}") from error


def _failures(broker_url: str) -> tuple[type[Exception], ...]:
    """Return what is raised if the broker does not respond."""
    if broker_url.startswith(FOLDER_SCHEME):
        return OSError, OperationalError
    from redis.exceptions import RedisError  # a twentieth of the API's start, for Redis alone

    return OSError, OperationalError, RedisError


def _transport(broker_url: str) -> dict[str, Any]:
    if not broker_url.startswith(FOLDER_SCHEME):
        # Redis redelivers a message after this time. A training run may last longer; the
        # redelivered message then finds the job claimed and does nothing.
        return {"broker_url": broker_url, "broker_transport_options": {"visibility_timeout": 3600}}
    folder = Path(broker_url.removeprefix(FOLDER_SCHEME))
    messages, control = folder / "messages", folder / "control"
    for needed in (messages, control):
        needed.mkdir(parents=True, exist_ok=True)
    return {
        # Kombu cannot read a class from a URL, so the class is a separate option.
        "broker_url": f"{FOLDER_SCHEME}localhost",
        "broker_transport": "core.jobs.folder_transport:Transport",
        "broker_transport_options": {
            "data_folder_in": str(messages),
            "data_folder_out": str(messages),
            "control_folder": str(control),
            "polling_interval": POLL_SECONDS,
        },
    }
