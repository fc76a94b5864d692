"""An engine reports while it lives, and takes leave when it ends."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

import pytest
from pydantic import SecretStr

from core.spec.base_files import BaseSource, NamedSource
from core.spec.engine_protocol import EngineReport, ReportAnswer
from tests.worker.reporting import ReportingDesk, reporting_desk
from worker.engine_face import registration
from worker.engine_face.registration import Registration

TIMEOUT_SECONDS = 60
NOBODY = "http://127.0.0.1:9"
REPORT = EngineReport(url="http://127.0.0.1:8001", running=2, max_running=4)


@pytest.fixture
def desk() -> Iterator[ReportingDesk]:
    with reporting_desk() as desk:
        yield desk


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(registration, "FIRST_PAUSE_SECONDS", 0.05)


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not is_so():
            await asyncio.sleep(0.005)


def test_reports_come_again_and_again_with_the_key(desk: ReportingDesk) -> None:
    reports = iter([REPORT, REPORT.model_copy(update={"running": 3})])

    async def live() -> None:
        async with Registration(desk.url + "/", SecretStr("s3cret"), lambda: next(reports, REPORT)):
            await until(lambda: len(desk.reports) >= 4)
            assert desk.left == []

    asyncio.run(live())
    assert [report.running for report in desk.reports[:3]] == [2, 3, 2]
    assert desk.left == [REPORT.url]
    assert desk.keys == {"Bearer s3cret"}


def test_a_change_is_reported_at_once(desk: ReportingDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "BEAT_SECONDS", 3600)

    async def live() -> None:
        async with Registration(desk.url, None, lambda: REPORT) as registered:
            await until(lambda: desk.reports)
            registered.report_now()
            await until(lambda: len(desk.reports) == 2)

    asyncio.run(live())
    assert desk.left == [REPORT.url]
    assert desk.keys == {None}


def test_engine_looks_for_the_bases_that_the_api_names(desk: ReportingDesk) -> None:
    here, gone = (NamedSource(id=name, files=BaseSource(source=name)) for name in ("here", "gone"))
    desk.status, desk.answer = 200, ReportAnswer(bases=(here, gone)).model_dump_json().encode()

    def look(bases: Sequence[NamedSource]) -> list[BaseSource]:
        return [each.files for each in bases if each == here]

    async def live() -> None:
        async with Registration(desk.url, None, lambda: REPORT, look):
            await until(lambda: len(desk.reports) >= 2)

    asyncio.run(live())
    assert [report.present for report in desk.reports[:2]] == [(), (here.files,)]


def test_an_api_that_comes_back_is_told_and_the_log_says_so_once(
    desk: ReportingDesk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=registration.__name__)

    async def live() -> None:
        async with Registration(desk.url, None, lambda: REPORT):
            for status in (503, 204, 401, 204):
                desk.status, count = status, len(desk.reports)
                await until(lambda count=count: len(desk.reports) >= count + 3)  # type: ignore[misc]

    asyncio.run(live())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2


def test_without_an_api_an_engine_lives_and_ends_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = []

    def report() -> EngineReport:
        asked.append(1)
        return REPORT

    async def live() -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS), Registration(NOBODY, None, report):
            await until(lambda: len(asked) >= 3)

    asyncio.run(live())
    assert NOBODY in caplog.text
