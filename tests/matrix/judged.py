"""The end of a job as a worker makes it, at a real engine: parity, then the verdict."""

from dataclasses import dataclass
from pathlib import Path

from core.inference.targets import Target
from core.parity.asking import Candidate
from core.spec.ids import ModelId, ProjectId
from core.spec.parity import Parity
from core.spec.verdict import Verdict
from tests.matrix.run import Trained, engine_settings, stored
from tests.worker.answering.in_memory import background_at
from tests.worker.one_engine import OneEngine
from tests.worker.serving import serving
from worker.engine_client.find import EngineAddress
from worker.parity.check import ParityCheck
from worker.verdict.subject import Subject
from worker.verdict.verdict import VerdictCheck

PROJECT = ProjectId("default")
SECONDS = 60.0


@dataclass(frozen=True)
class Judged:
    """What a worker would store with the model."""

    parity: Parity
    verdict: Verdict


def judged(trained: Trained, folder: Path) -> Judged:
    """Check the model of a run, and compare it with its base."""
    facts, spec, bundle = trained.finished.held_out, trained.spec, stored(trained, folder)
    assert facts is not None
    base = Target(ModelId(spec.base.id), spec.base, None)
    tuned = Target(ModelId("ft:tuned"), spec.base, bundle)
    subject = Subject(PROJECT, spec, facts, base, tuned, checkpoints=())
    with serving(engine_settings(trained, folder)) as service:
        url = str(service.client.base_url)
        parity_check = ParityCheck(lambda candidate: EngineAddress(url), lambda: False)
        candidate = Candidate(spec.base, bundle, PROJECT)
        parity = parity_check(trained.finished.reference, candidate)
        verdict_check = VerdictCheck(
            lambda: background_at(OneEngine(url)), lambda target: True, lambda: False, SECONDS
        )
        return Judged(parity, verdict_check(subject, parity))
