"""One training run from a job spec to a bundle, as a stream of events.

The recipe computes and writes files; it uses no database, queue or callbacks. A test is
`list(train(spec, workspace, stop))`.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from core.adapters.memory import OutOfMemory, all_or_nothing
from core.artifacts.bundle import write_bundle
from core.artifacts.card import CardFacts
from core.evaluation.best import best_step
from core.models.precision import dtype_of, pick_device
from core.models.precision_choice import PrecisionChooser
from core.spec.events import (
    MaskAudited,
    ModelReady,
    PhaseStarted,
    ResumeStateSaved,
    RunEvent,
    RunFinished,
)
from core.spec.job import JobSpec
from core.spec.workspace import Workspace
from core.training.activations import use_gradient_checkpointing
from core.training.baseline import measure_baseline
from core.training.data import load_dataset
from core.training.held_out import held_out_facts
from core.training.inputs import inputs_of
from core.training.learning_rate import settled, with_rate
from core.training.loop import (
    Stopped,
    Training,
    evaluate_and_checkpoint,
    halve_micro_batch,
    take_step,
)
from core.training.mask import audit
from core.training.model import base_of, load_model
from core.training.neftune import add_noise
from core.training.optimizer import build_optimizer
from core.training.parity import parity_reference
from core.training.plan import StepPlan
from core.training.replayed import choose_rows
from core.training.resume import fingerprint_of, load_state, save_state
from core.training.row_losses import RowLossTable
from core.training.rung import pause_at_rung
from core.training.state import RunState
from core.training.threads import limit_threads

RESUME_SECONDS = 180.0
"""Between two resume states: the maximum work lost in a crash."""


def train(
    spec: JobSpec,
    workspace: Workspace,
    stop: Callable[[], bool],
    resume_seconds: float = RESUME_SECONDS,
    precision_folder: Path | None = None,
    stored_source: str | None = None,
    pause_at_share: float | None = None,
    asks_at_rung: bool = False,
) -> Iterator[RunEvent]:
    """Yield the events of a run; the last is RunFinished, or ResumeStateSaved if `stop` is true.

    With `pause_at_share`, the run is evaluated and ends with RungReached after that share of its
    steps; the rates are those of the complete run. With `asks_at_rung`, it has a bundle then.

    `stop` is called before every micro-batch. A run resumes from a matching resume state in the
    workspace, and then has the same result as without the interruption; `stored_source` is the
    base's source that such a state refers to, if it differs from that of `spec`. `precision_folder`
    stores the measured cost of 16 bits.

    Raises TrainingFailed (`invalid_training_file`, `invalid_validation_file`, which name the lines,
    `out_of_memory`, `loss_nonfinite`), NotFound `base_missing`, or, before DatasetValidated,
    InvalidRequest if the job does not fit its base.
    """
    device = pick_device()
    yield PhaseStarted(phase="preparing data")
    inputs = inputs_of(spec, base_of(spec, workspace))
    tokenizer, objective = inputs.tokenizer, inputs.objective
    dataset = load_dataset(inputs, workspace)
    plan = StepPlan(spec, len(dataset.rows))
    spec = settled(spec, inputs.config, plan.total_steps)
    hyper = spec.training
    described = with_rate(dataset.described(plan.total_steps), spec)
    yield described
    yield MaskAudited(rows=audit(spec, tokenizer, dataset.rows))
    replays = choose_rows(dataset, spec, workspace, tokenizer)

    yield PhaseStarted(phase="loading model")
    chosen = PrecisionChooser(device, precision_folder).choose(spec.base, hyper.precision)
    dtype = dtype_of(chosen.choice)
    if device.type == "cpu":
        limit_threads(inputs.config, plan.tokens_per_pass(described.tokens))
    with all_or_nothing("The base model"):
        adapted = load_model(spec, workspace, tokenizer, dtype, device)
        rows = [*dataset.rows, *dataset.validation_rows]
        objective.prepare(adapted, rows, hyper.micro_batch_tokens)
    optimizer = build_optimizer(adapted, spec, dtype)
    checkpointed = use_gradient_checkpointing(adapted, dataset.rows, hyper)
    if hyper.neftune_alpha:
        add_noise(adapted, hyper.neftune_alpha)
    ready = ModelReady(
        trainable_parameters=adapted.trainable_parameters,
        total_parameters=adapted.total_parameters,
        precision=chosen.choice,
        device=str(device),
        gradient_checkpointing=checkpointed,
        chosen=chosen,
    )
    yield ready

    yield PhaseStarted(phase="training")
    facts = CardFacts(spec, described, ready)
    rung = plan.rung_step(pause_at_share)
    training = Training(
        spec, workspace, dataset, plan, objective, tokenizer, facts, stop, dtype, replays, rung
    )
    state = RunState(
        adapted=adapted,
        optimizer=optimizer,
        budget_tokens=hyper.micro_batch_tokens,
        row_losses=RowLossTable(dataset.rows),
        best_file=workspace.folder / "best.safetensors",
    )
    fingerprint = fingerprint_of(
        spec, workspace, dtype, device, dataset.rows, dataset.validation_rows, stored_source
    )
    if (begun := load_state(workspace, fingerprint, state)) is not None:
        yield begun
    saved_at = time.monotonic()
    try:
        while not training.is_finished(state):
            try:
                if pause_at_share is not None and training.is_at_rung(state):
                    yield from pause_at_rung(
                        training, state, fingerprint, pause_at_share, asks_at_rung
                    )
                    return
                yield from _next_action(state)(training, state)
            except OutOfMemory as shortage:
                yield halve_micro_batch(state, shortage)
            if state.step and time.monotonic() >= saved_at + resume_seconds:
                folder = save_state(workspace, fingerprint, state)
                yield ResumeStateSaved(step=state.step, folder=folder)
                saved_at = time.monotonic()
    except Stopped:
        folder = save_state(workspace, fingerprint, state)
        yield ResumeStateSaved(step=state.step, folder=folder)
        return

    yield PhaseStarted(phase="bundling")
    best = best_step(state.curve) if spec.evaluation.keep_best else None
    chosen_step = best.step if best else state.step
    if chosen_step != state.step:
        state.restore_best()
    manifest = write_bundle(workspace.bundle_folder, training.bundle(state, chosen_step))

    yield PhaseStarted(phase="checking parity")
    # the last checkpoint has the same weights, unless an earlier one was the best
    reference = state.last_reference if chosen_step == plan.total_steps else None
    if reference is None:
        reference = parity_reference(training.trained(state, workspace.bundle_folder), replays)
    held_out = state.curve[chosen_step - 1]
    yield RunFinished(
        folder=workspace.bundle_folder,
        weights_sha256=manifest.weights_sha256,
        trained_tokens=state.trained_tokens,
        step=chosen_step,
        reference=reference,
        validation_loss=held_out.valid_loss,
        validation_accuracy=held_out.valid_mean_token_accuracy,
        held_out=held_out_facts(training, state, chosen_step),
    )


def _next_action(state: RunState) -> Callable[[Training, RunState], Iterator[RunEvent]]:
    if state.baseline is None:
        return measure_baseline
    return evaluate_and_checkpoint if state.checkpointed_step < state.step else take_step
