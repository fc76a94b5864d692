"""The lines of a batch as requests, whose answers go to the journal."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from core.errors import TunesmithError
from worker.batches.journal import Journal
from worker.batches.lines import LineRequest, answered_line, refused_line


class Lines:
    """The lines that are not answered yet."""

    is_open = False

    def __init__(self, requests: Iterator[LineRequest], journal: Journal) -> None:
        self._requests = requests
        self._journal = journal

    def take(self) -> LineRequest | None:
        return next(self._requests, None)

    def answered(self, request: LineRequest, answer: tuple[int, Mapping[str, Any]]) -> None:
        self._journal.add(answered_line(request, *answer))

    def refused(self, request: LineRequest, error: TunesmithError) -> None:
        self._journal.add(refused_line(request, error))

    async def store(self) -> None:
        if self._journal.is_due:
            await asyncio.to_thread(self._journal.store)
