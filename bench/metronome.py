"""An engine whose model is a metronome, `python -m bench.metronome PORT PACE BATCH API_PORT`.

HTTP face, scheduler and model thread are the real ones. In place of a model a step waits for the
next beat, and every token's text is the time at which the model thread emitted it, so that
whoever reads it knows how long it took. The clock is the machine's, the same in all processes.
"""

import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
import uvicorn

from core.engine.device.resident import Resident
from core.engine.device.runner import Runner
from core.engine.engine import Emit, Engine, Ticket
from core.engine.metrics import EngineMetrics
from core.engine.policy.request import AnyRequest, AnySequence, BaseKey
from core.engine.policy.residency import Tally
from core.engine.policy.scheduler import Scheduler
from core.engine.policy.step import Step
from core.engine.results import Written
from core.engine.text.answers import AnyAnswer
from core.errors import TunesmithError
from core.spec.engine_protocol import EngineReport
from core.spec.generation import GenerationDelta
from worker.engine.app import create_app
from worker.engine.serve import SWITCH_SECONDS, build_engine, report
from worker.engine.settings import EngineSettings
from worker.engine_face.registration import Registration
from worker.engine_face.server import KEEP_ALIVE_SECONDS, EngineServer

VOCABULARY = 4096
TOKEN = 40
"""The token that it always generates; its text is replaced by the time."""


class MetronomeRunner(Runner):
    """Runs a step at the next beat; it loads no model."""

    def __init__(self, pace_seconds: float) -> None:
        super().__init__(_load_nothing, max_bases=1)
        self._pace_seconds = pace_seconds
        self._next = time.monotonic()

    def prepare(
        self, step: Step, bases_in_use: Collection[BaseKey]
    ) -> dict[AnySequence, TunesmithError]:
        return {}

    def run(self, step: Step) -> Written:
        self._next = max(self._next + self._pace_seconds, time.monotonic())
        time.sleep(max(0.0, self._next - time.monotonic()))
        writing = [chunk.sequence for chunk in step.chunks if chunk.is_last]
        logits_SV = torch.zeros(len(writing), VOCABULARY)
        logits_SV[:, TOKEN] = 100.0  # for any temperature
        return Written(writing, logits_SV)


class TimedAnswer:
    """An answer whose texts are the times at which they were emitted."""

    def __init__(self, answer: AnyAnswer) -> None:
        self._answer = answer

    def take(self, sequence: AnySequence, outcome: Any) -> Iterator[Any]:
        for item in self._answer.take(sequence, outcome):
            if isinstance(item, GenerationDelta):
                yield item.model_copy(update={"text": f"{time.monotonic():.7f} "})
            else:
                yield item


class TimedEngine(Engine):
    def submit(self, request: AnyRequest, answer: AnyAnswer, emit: Emit) -> Ticket:
        return super().submit(request, TimedAnswer(answer), emit)  # type: ignore[arg-type]


def _load_nothing(base: BaseKey) -> Resident:
    raise AssertionError("a metronome loads no model")


def main() -> None:
    port, pace_seconds, batch, api_port = sys.argv[1:]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = EngineSettings(
            storage_folder=Path(folder),
            cache_folder=Path(folder),
            max_batch=int(batch),
            port=int(port),
            api_url=f"http://127.0.0.1:{api_port}",
            max_waiting=1024,
        )
        real, reader = build_engine(settings)
        runner = MetronomeRunner(float(pace_seconds))
        scheduler = Scheduler(real.scheduler.limits, lambda base: None)
        engine = TimedEngine(scheduler, runner, EngineMetrics(scheduler, runner, Tally()))
        sys.setswitchinterval(SWITCH_SECONDS)

        def describe() -> EngineReport:
            return report(engine, settings)

        config = uvicorn.Config(
            create_app(engine, reader, describe),
            port=settings.port,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        registration = Registration(settings.api_url, None, describe)
        EngineServer(config, engine, registration, drain_seconds=0).run()


if __name__ == "__main__":
    main()
