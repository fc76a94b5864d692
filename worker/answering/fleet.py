"""The engines that answer requests: how much each has in flight, and pauses after failures."""

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import SecretStr

from core.inference.endpoints import Engine
from core.inference.targets import Target
from core.records.engine_order import in_order
from core.records.engines import LivingEngine
from worker.engine_client.client import OneEngineClient
from worker.engine_client.find import EngineAddress

LOST_SECONDS = 60.0
"""An engine without a heartbeat for this long has lost its requests."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0


class Client(Engine, Protocol):
    """The connections to one engine."""

    async def close(self) -> None: ...


Connect = Callable[[str], Client]
"""Returns the client of the engine at an address."""


def connect_with(key: SecretStr | None) -> Connect:
    """Return what connects to engines with this key, and waits for an answer for hours.

    A request of the background may have to. Heartbeats tell of an engine that is dead.
    """
    return lambda url: OneEngineClient(EngineAddress(url, key), silence_seconds=None)


@dataclass(eq=False)
class Member:
    """One engine. A full batch with half as many requests behind it keeps it busy."""

    engine: LivingEngine
    client: Client
    last_seen: float
    in_flight: int = 0
    paused_until: float = 0.0
    pause_seconds: float = field(default_factory=lambda: FIRST_PAUSE_SECONDS)

    @property
    def url(self) -> str:
        return self.engine.url

    @property
    def has_room(self) -> bool:
        running = self.engine.report.max_running
        return self.in_flight < running + max(2, running // 2)

    def pause(self) -> None:
        """Send nothing for a while, twice as long after each failure in a row."""
        now = time.monotonic()
        if now >= self.paused_until:  # many requests fail at once when an engine dies
            self.paused_until = now + self.pause_seconds
            self.pause_seconds = min(2 * self.pause_seconds, LONGEST_PAUSE_SECONDS)

    def works(self) -> None:
        """Record that the engine has answered."""
        self.pause_seconds = FIRST_PAUSE_SECONDS


class Fleet:
    """The members; owns their connections until `close`."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._members: dict[str, Member] = {}
        self._lost: list[Member] = []

    def update(self, living: Sequence[LivingEngine]) -> list[Member]:
        """Take the engines that are alive now; return the members that are lost."""
        now = time.monotonic()
        for engine in living:
            member = self._members.get(engine.url)
            if member is None:
                self._members[engine.url] = Member(engine, self._connect(engine.url), now)
            else:
                member.engine, member.last_seen = engine, now
        lost = [each for each in self._members.values() if now - each.last_seen > LOST_SECONDS]
        for member in lost:
            del self._members[member.url]
        self._lost += lost
        return lost

    def pick(self, target: Target | None, refused_by: Container[str]) -> Member | None:
        """Return the most suitable member with room; None if a request must wait."""
        now = time.monotonic()
        free = [
            each.engine
            for each in self._members.values()
            if each.has_room and each.paused_until <= now and each.url not in refused_by
        ]
        if target is None:
            return self._members[free[0].url] if free else None
        in_flight = {url: member.in_flight for url, member in self._members.items()}
        ordered = in_order(free, target.base, target.adapter, in_flight)
        return self._members[ordered[0].url] if ordered else None

    def all_in(self, urls: Container[str]) -> bool:
        """Return whether there are engines, all of them with an address in `urls`."""
        return bool(self._members) and all(url in urls for url in self._members)

    async def close(self) -> None:
        for member in (*self._members.values(), *self._lost):
            await member.client.close()
