"""A tuned model in a workshop, exports of it, and children that only pretend."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from core.records import exports
from core.records.models import StoredBundle, add_final_model
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job, Task
from core.spec.bundle import BundleRef
from core.spec.events import RunFailed
from core.spec.export import ExportOptions, ExportRequest
from core.spec.export_steps import (
    ExportStep,
    ReplayedFigures,
    ReplayStep,
    RowFigures,
    ScoredRow,
    ServedFigures,
    ServeStep,
    StepResult,
    WriteStep,
    Written,
)
from core.spec.strategy import LoraSpec
from tests.core.engine.bundles import write_bundle
from tests.worker.workshop import TINY, Workshop

MODEL = "ft:tiny:default:test:abc"
WEIGHTS = b"weights" * 10_000


def tuned_model(workshop: Workshop) -> BundleRef:
    """Record a final model with a real bundle, and return the bundle."""
    job_id = workshop.submit()
    bundle = write_bundle(workshop.folder / "tuned", workshop.store, TINY, LoraSpec(rank=2)).ref
    workshop.end_badly(job_id)  # no worker shall train it
    with workshop.database.writing() as session:
        job = get_owned(session, Job, DEFAULT_PROJECT, job_id)
        add_final_model(session, job, MODEL, StoredBundle(bundle.key, bundle.sha256))
    return bundle


def request_export(
    workshop: Workshop, bundle: BundleRef, token: str | None = None, **options: object
) -> str:
    wanted = {"format": "merged", "form": "merged"} | options
    request = ExportRequest(
        model=MODEL, base=TINY, bundle=bundle, options=ExportOptions.model_validate(wanted)
    )
    with workshop.database.writing() as session:
        return exports.request_export(session, DEFAULT_PROJECT, request, token).id


def export_of(workshop: Workshop, export_id: str) -> Task:
    with workshop.database.reading() as session:
        return exports.get_export(session, DEFAULT_PROJECT, export_id)


@contextmanager
def pretending_children(
    answer: Callable[[ExportStep], StepResult | RunFailed | None] = lambda step: None,
) -> Iterator[list[ExportStep]]:
    """Answer each step without torch, unless `answer` does. Yields the steps that were asked."""
    asked: list[ExportStep] = []

    def ask(step: ExportStep, threads: int, log: Path, stop: object) -> StepResult | RunFailed:
        asked.append(step)
        return answer(step) or _done(step)

    with patch("worker.exports.building.ask_for_export_step", ask):
        yield asked


def _done(step: ExportStep) -> StepResult:
    figures = (RowFigures(logprobs=(-1.0, -2.0), preferred=(3, 4)),)
    row = ScoredRow(tokens=(1, 2, 3), scored=(False, True, True))
    match step:
        case ServeStep():
            return ServedFigures(
                task="generation",
                multi_label=False,
                of_parity_check=True,
                rows=(row,),
                served=figures,
            )
        case WriteStep():
            step.out.mkdir()
            (step.out / "model.safetensors").write_bytes(WEIGHTS)
            (step.out / "config.json").write_text("{}")
            return Written()
        case ReplayStep():
            return ReplayedFigures(figures=figures)
        case _:
            raise AssertionError(step)
