"""Many streams of events wait together, with one query for all of them."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import httpx
from sqlalchemy import event

from api.news import POLL_SECONDS, News
from core.records.events import NewEvent, append_events
from core.spec.ids import JobId
from tests.api.live import Api

JOBS = "/v1/fine_tuning/jobs"
STREAMS = 30


class _Statements:
    """Counts what an API asks its database."""

    def __init__(self, api: Api) -> None:
        self._engine = api.state.database.engine
        self.count = 0

    def __enter__(self) -> "_Statements":
        event.listen(self._engine, "before_cursor_execute", self._counted)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._counted)

    def _counted(self, *_: object) -> None:
        self.count += 1


def _read(lines: Sequence[str]) -> list[str]:
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(each)["message"] for each in data]


def test_waiting_streams_share_a_query_and_miss_no_event(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    followed = [create_job() for _ in range(3)]
    with ExitStack() as stack, httpx.Client(base_url=api.url, timeout=60, trust_env=False) as http:
        streams = [
            stack.enter_context(http.stream("GET", f"{JOBS}/{job}/events?stream=true"))
            for job in followed
            for _ in range(STREAMS // len(followed))
        ]
        lines = [stream.iter_lines() for stream in streams]
        for each in lines:
            while "Validating files" not in next(each):
                pass
        with _Statements(api) as statements:
            time.sleep(10 * POLL_SECONDS)
        assert 5 <= statements.count <= 2 * 12  # a poll is BEGIN and SELECT
        for number, job in enumerate(followed):
            with api.database.writing() as session:
                append_events(session, JobId(job), [NewEvent(f"news {number} {i}") for i in (1, 2)])
        for job in followed:
            client.post(f"{JOBS}/{job}/cancel")
        read = [_read(list(each)) for each in lines]
    for index, messages in enumerate(read):
        number = index // (STREAMS // len(followed))
        assert messages[:2] == [f"news {number} 1", f"news {number} 2"]
        assert "cancel" in messages[-1]


def test_news_wake_who_waits_for_them_and_nobody_else() -> None:
    found = {"a": 1.0, "b": 5.0}
    asked: list[set[str]] = []

    def positions(ids: Sequence[str]) -> dict[str, float]:
        asked.append(set(ids))
        return {id_: found[id_] for id_ in ids if id_ in found}

    async def wait() -> list[bool]:
        news = News[str](positions)
        pairs = [("a", 0), ("a", 1), ("b", 4), ("gone", 9)]
        return await asyncio.gather(*(news.wait(id_, after, 0.5) for id_, after in pairs))

    assert asyncio.run(wait()) == [True, False, True, True]
    assert asked[0] == {"a", "b", "gone"} and asked[-1] == {"a"}


def test_if_nobody_can_say_everybody_looks() -> None:
    def positions(ids: Sequence[str]) -> dict[str, float]:
        raise ConnectionError("the database is away")

    async def wait() -> bool:
        return await News[str](positions).wait("a", 0, 5)

    assert asyncio.run(wait())
