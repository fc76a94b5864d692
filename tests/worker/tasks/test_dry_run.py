"""A dry run is done by a real child, which measures two steps of the largest batch."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.planning.corrections import DryRun, correction_by, workload_from
from core.planning.fit import UNCORRECTED
from core.planning.run import PlannedRun
from core.records import dry_runs
from core.records.jobs import NewJob
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Task
from core.records.workers import calibrations, worker_seen
from core.spec.dry_run import CountedRows, DryRunRequest, DryRunResult
from core.spec.ids import FileId
from core.spec.job import JobSpec
from core.spec.training import TrainingSpec
from core.tasks.kinds import Queue
from tests.core.planning.devices import device
from tests.worker.workshop import TINY, Workshop, wait_until
from worker.context import Worker
from worker.launch import ask_for_calibration, warm_up
from worker.process.calibration import FILE, Calibrator
from worker.tasks.desk import TaskDesk

SPEC = JobSpec(base=TINY, training=TrainingSpec(batch_size=2, precision="fp32"), seed=1)
ESTIMATED = CountedRows(
    rows=6, mean_tokens=10, longest_tokens=20, sequences_per_row=1, labelled_share=0.5
)


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    warm_up()


@pytest.fixture
def ask(workshop: Workshop) -> Callable[[str], str]:
    """Ask for a dry run on a file with this content; return its id."""

    def ask(content: str) -> str:
        new = NewJob(
            project_id=DEFAULT_PROJECT,
            requested_model="tiny",
            suffix=None,
            training_file=FileId(workshop.upload(content)),
            validation_file=None,
            spec=SPEC,
            metadata=None,
        )
        with workshop.database.writing() as session:
            return dry_runs.request_dry_run(session, new, ESTIMATED).id

    return ask


def answered(workshop: Workshop, run_id: str) -> Task:
    worker = Worker(workshop.settings(), workshop.database, workshop.store, threading.Event())
    TaskDesk(worker, Queue.DEVICE).run_waiting()
    with workshop.database.reading() as session:
        run = dry_runs.get_dry_run(session, DEFAULT_PROJECT, run_id)
    assert run.finished_at is not None
    return run


def chat(words: int) -> str:
    answer = " ".join(["word"] * words)
    turns = {"role": "user", "content": "Write."}, {"role": "assistant", "content": answer}
    return json.dumps({"messages": turns}) + "\n"


def test_two_steps_of_the_largest_batch_are_measured(
    workshop: Workshop, ask: Callable[[str], str]
) -> None:
    with workshop.database.writing() as session:
        worker_seen(session, workshop.settings().worker_id, "cpu", Queue.DEVICE, device())
    lengths = (3, 40, 5, 60, 4, 2)
    run = answered(workshop, ask("".join(map(chat, lengths))))
    assert run.error is None
    result = DryRunResult.model_validate(run.result)
    counted = result.counted
    assert (counted.rows, result.machine) == (6, "machine-1")
    assert counted.longest_tokens <= result.batch_tokens <= 2 * counted.longest_tokens
    config = json.loads((Path(TINY.source) / "config.json").read_text(encoding="utf-8"))
    planned = PlannedRun(SPEC, config, workload_from(counted))
    assert planned.counts.trainable == result.trainable_parameters
    assert planned.counts.total == result.total_parameters
    assert planned.steps == result.total_steps
    assert 0 < result.seconds_per_step < 60
    measured = ask_for_calibration(workshop.settings().threads, lambda: False)
    assert measured is not None
    request = DryRunRequest.model_validate(run.payload)
    own = DryRun(request, result.model_copy(update={"machine": measured.machine}))
    # a dry run omits the bundle and its checks
    assert 0.75 < correction_by([own], config, measured).memory < 1.15
    assert correction_by([own], config, device(machine="other")) == UNCORRECTED
    assert list(workshop.settings().work_folder.glob("tasks/*")) == []


def test_a_faulty_file_ends_a_dry_run_with_the_line(
    workshop: Workshop, ask: Callable[[str], str]
) -> None:
    run = answered(workshop, ask(chat(3) + "{}\n"))
    assert run.error is not None
    assert run.error["code"] == "invalid_training_file"
    assert "Line 2" in run.error["message"]


def test_an_idle_worker_measures_its_device_once_and_keeps_it(workshop: Workshop) -> None:
    folder = workshop.folder / "work"
    calibrator = Calibrator(folder, threads=1, idle_seconds=0.05)
    with calibrator.running():
        wait_until(lambda: calibrator.found is not None, "the device is measured")
    found = calibrator.found
    assert found is not None and found.threads == 1
    same = found.model_dump(exclude={"free_bytes"})
    assert found.fp32.large > 1e9 and 1e8 < found.bytes_per_second < 1e13
    assert found.free_bytes <= found.memory_bytes
    again = Calibrator(folder, threads=1, idle_seconds=0.05)
    kept = again.found
    assert kept is not None and kept.model_dump(exclude={"free_bytes"}) == same
    with again.working():  # what its own work uses does not count
        assert again.found == again.found
    assert Calibrator(folder, threads=2, idle_seconds=0.05).found is None
    (folder / FILE).write_text("torn")
    assert Calibrator(folder, threads=1, idle_seconds=0.05).found is None
    with workshop.database.writing() as session:
        worker_seen(session, "worker-1", "cpu", Queue.DEVICE, found)
    with workshop.database.reading() as session:
        assert calibrations(session) == {"worker-1": found}


def test_work_stops_a_measurement_and_never_waits_for_it(workshop: Workshop) -> None:
    calibrator = Calibrator(workshop.folder / "work", threads=1, idle_seconds=0)
    with calibrator.running():
        wait_until(lambda: calibrator.is_measuring, "a measurement runs")
        with calibrator.working():
            assert not calibrator.is_measuring
            assert calibrator.found is None
        wait_until(lambda: calibrator.found is not None, "the device is measured")
