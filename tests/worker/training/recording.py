"""A recorder of a claimed job, and what a run tells it."""

from pathlib import Path

from core.spec.events import (
    CheckpointSaved,
    DatasetValidated,
    RunFinished,
    StepDone,
)
from core.spec.generation import TextPrompt
from core.spec.parity import Parity, ParityReference, ReplayedRow
from core.spec.verdict import Verdict
from core.verdict.judge import Collected, judge
from tests.worker.workshop import Workshop
from worker.parity.check import ParityCheck
from worker.training.publish import CheckParity, JudgeModel, Publisher, ScoreTrial
from worker.training.recorder import Recorder
from worker.training.resume import ResumeStates
from worker.verdict.subject import Subject

REFERENCE = ParityReference(
    precision="fp32",
    rows=(
        ReplayedRow(
            line=1,
            prompt=TextPrompt(text="a"),
            prompt_ids=(1,),
            answer=(2,),
            logprobs=(None, -1.0),
        ),
    ),
)
NO_ENGINE = ParityCheck(lambda base: None, lambda: False)
VALIDATED = DatasetValidated(rows=8, validation_rows=2, tokens=80, targets=40, total_steps=4)


def unasked(subject: Subject, parity: Parity) -> Verdict:
    """What is judged without answers."""
    return judge(subject.spec, subject.facts, subject.compared_with, Collected())


def recording(
    workshop: Workshop,
    check_parity: CheckParity = NO_ENGINE,
    judge_model: JudgeModel = unasked,
    score_trial: ScoreTrial = lambda model: None,
) -> Recorder:
    """The recorder of an attempt that has claimed the oldest job."""
    parts = (workshop.database, workshop.store, workshop.claim())
    publisher = Publisher(*parts, check_parity, judge_model, score_trial)
    return Recorder(workshop.database, parts[-1], ResumeStates(*parts), publisher)


def step(number: int, seconds: float = 1.0) -> StepDone:
    return StepDone(
        step=number,
        total_steps=4,
        epoch=1,
        loss=0.8311,
        accuracy=0.5,
        learning_rate=1e-3,
        gradient_norm=1.0,
        tokens=10,
        targets=5,
        seconds=seconds,
    )


def checkpoint(number: int, folder: Path) -> CheckpointSaved:
    return CheckpointSaved(
        step=number,
        folder=folder,
        train_loss=0.9,
        train_accuracy=0.4,
        validation_loss=1.1,
        validation_accuracy=0.3,
    )


def finished(folder: Path) -> RunFinished:
    return RunFinished(folder=folder, weights_sha256="0" * 64, trained_tokens=9)
