"""The failed prompts of a distillation, and whether there are too many to go on."""

import math
from collections.abc import Awaitable, Callable, Iterator

from core.records.distillation_progress import RowResult
from core.spec.distillation import DistillationRequest
from worker.distillations.prompts import Row


class Failures:
    """Counts failed prompts, those of earlier attempts included."""

    def __init__(self, request: DistillationRequest, failed: int) -> None:
        self._share = request.max_failed_share
        self._total = request.total
        self._allowed = math.floor(request.max_failed_share * request.total)
        self._failed = failed

    @property
    def are_too_many(self) -> bool:
        return self._failed > self._allowed

    def until_too_many(self, rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
        """Yield rows while the distillation can succeed: a teacher may cost money."""
        for row in rows:
            if self.are_too_many:
                return
            yield row

    def counting(
        self, result_of: Callable[[int, Row], Awaitable[RowResult]]
    ) -> Callable[[int, Row], Awaitable[RowResult]]:
        """Return `result_of`, whose failures are counted."""

        async def counted(number: int, row: Row) -> RowResult:
            result = await result_of(number, row)
            self._failed += result.status == "failed"
            return result

        return counted

    @property
    def message(self) -> str:
        """Return what the owner is told if there are too many."""
        return (
            f"The teacher failed on {self._failed} of {self._total} prompts, and max_failed_share "
            f"is {self._share:g}. The rest was not asked."
        )
