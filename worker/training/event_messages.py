"""The events of a run as the owner of the job reads them: texts and figures.

Texts and keys are OpenAI's where OpenAI has them.
"""

from typing import Any

from core.records.events import Level, NewEvent
from core.spec.events import (
    CheckpointSaved,
    DatasetValidated,
    Evaluated,
    MicroBatchHalved,
    ModelReady,
    PhaseStarted,
    RowLosses,
    RunRestarted,
    RunResumed,
    StepDone,
    StoppedEarly,
)
from core.spec.parity import Parity
from core.spec.verdict import Verdict

SHOWN_LINES = 5


def phase_message(event: PhaseStarted) -> NewEvent:
    return NewEvent(f"{event.phase.capitalize()}.")


def dataset_message(event: DatasetValidated) -> NewEvent:
    """Describe the dataset; `data` has the histogram of row lengths.

    A warning if most of the validation rows are also training rows.
    """
    parts = [f"{event.rows:,} training rows with {event.tokens:,} tokens per epoch"]
    if event.validation_rows:
        held_out = " held out from the training file" if event.held_out_rows else ""
        parts.append(f"{event.validation_rows:,} validation rows{held_out}")
    if event.shared_rows:
        parts.append(
            f"{event.shared_rows:,} of those are also training rows, so the validation loss says "
            "less about new texts (remove them from one of the files)"
        )
    if event.duplicate_rows:
        lines = _lines(event.duplicate_lines, event.duplicate_rows)
        parts.append(f"{event.duplicate_rows:,} duplicates of an earlier row ({lines})")
    if event.truncated_rows:
        lines = _lines(event.truncated_lines, event.truncated_rows)
        parts.append(f"{event.truncated_rows:,} truncated to the length limit ({lines})")
    if event.learning_rate is not None:
        parts.append(f"learning rate {event.learning_rate:g}")
    if event.split_conversations:
        parts.append(
            f"{event.split_conversations:,} conversations split into one row per answer, because "
            "the chat template changes earlier answers once a message follows "
            f"({event.split_tokens:,} additional tokens per epoch)"
        )
    data = event.model_dump(mode="json", exclude={"type"})
    mostly_shared = 2 * event.shared_rows > event.validation_rows
    return NewEvent("; ".join(parts) + ".", level="warn" if mostly_shared else "info", data=data)


def model_message(event: ModelReady) -> NewEvent:
    """Describe the trained weights and the number format; a warning if the format costs much."""
    text = (
        f"Training {event.trainable_parameters:,} of {event.total_parameters:,} parameters "
        f"in {event.precision} on {event.device}"
    )
    if event.gradient_checkpointing:
        text += ", with gradient checkpointing to save memory"
    chosen = event.chosen
    if chosen is None:
        return NewEvent(text + ".")
    text += f"; {remark}." if (remark := chosen.remark) else "."
    data = {"precision": chosen.model_dump(mode="json")}
    return NewEvent(text, "warn" if chosen.warning else "info", data=data)


def resume_message(event: RunResumed) -> NewEvent:
    return NewEvent(f"Resumed from step {event.step}.")


def restart_message(event: RunRestarted) -> NewEvent:
    text = (
        f"The state saved after step {event.step} is not used, because the rows, the number "
        "format, the device or the version of the service has changed. The run starts again."
    )
    return NewEvent(text, "warn")


def step_message(step: StepDone) -> NewEvent:
    data = {
        "step": step.step,
        "total_steps": step.total_steps,
        "epoch": step.epoch,
        "train_loss": step.loss,
        "train_mean_token_accuracy": step.accuracy,
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm,
        "tokens": step.tokens,
        "targets": step.targets,
        "seconds": step.seconds,
    }
    message = f"Step {step.step}/{step.total_steps}: training loss={step.loss:.2f}"
    return NewEvent(message, type="metrics", data=data)


def evaluation_message(event: Evaluated, total_steps: int) -> NewEvent:
    data = {
        "step": event.step,
        "total_steps": total_steps,
        **_validation_metrics(event.loss, event.accuracy),
    }
    message = f"Step {event.step}/{total_steps}: full validation loss={event.loss:.2f}"
    return NewEvent(message, type="metrics", data=data)


def row_message(event: RowLosses) -> NewEvent:
    """List the lines with the highest losses."""
    hardest = ", ".join(f"line {row.line} ({row.loss:.2f})" for row in event.hardest[:SHOWN_LINES])
    text = f"Epoch {event.epoch}: median row loss={event.median:.2f}; highest: {hardest}"
    return NewEvent(text, data=event.model_dump(mode="json", exclude={"type"}))


def memory_message(event: MicroBatchHalved) -> NewEvent:
    text = (
        f"The device ran out of memory after step {event.step}. From now on, micro-batches have at "
        f"most {event.micro_batch_tokens:,} tokens; each step still has the same rows."
    )
    return NewEvent(text, "warn")


def early_stop_message(event: StoppedEarly) -> NewEvent:
    return NewEvent(
        f"Stopped early after step {event.step}: the validation loss has not improved since step "
        f"{event.best_step}."
    )


def parity_message(parity: Parity, model_id: str) -> NewEvent:
    """Report whether the model is served as it was trained; `data` has the figures."""
    data = parity.model_dump(mode="json")
    match parity.status:
        case "unchecked":
            text = (
                "Parity is unchecked, but the model is published. It is checked at its first "
                f"request, if an engine is available then. Reason: {parity.reason}"
            )
            return NewEvent(text, "warn", data=data)
        case "failed":
            text = (
                f"Parity failed ({parity.differs}): the model is not served as it was trained. "
                f"{parity.reason} The model is stored and can be downloaded. To use it anyway, "
                f"send POST /v1/models/{model_id}/publish."
            )
            return NewEvent(text, "error", data=data)
        case "passed":
            formats = parity.training_precision, parity.engine_precision
            served = f"trained in {formats[0]}, served in {formats[1] or 'an unknown format'}"
            by_tokens = f" ({parity.token_rows} of them as tokens)" if parity.token_rows else ""
            text = (
                f"Parity passed: {parity.rows} rows{by_tokens}, {parity.tokens} tokens; the "
                "endpoint differs from training by at most "
                f"{parity.max_difference_nats:.2g} nat (allowed {parity.max_allowed_nats:.2g}); "
                f"{served}."
            )
            return NewEvent(text, data=data)


def verdict_message(verdict: Verdict, model_id: str) -> NewEvent:
    """State the verdict; `data` has its figures, and the evaluation of the job the rest.

    An error if a requirement withholds the model, a warning for a worse model.
    """
    data = verdict.model_dump(mode="json", exclude={"samples", "prompts", "by_label"})
    texts = [verdict.sentence]
    if verdict.overfitting.status in ("overfitted", "diverged"):
        texts.append(verdict.overfitting.reason)
    texts += [each for each in verdict.missing if each not in verdict.sentence]
    level: Level = "warn" if verdict.status == "worse" else "info"
    if (unmet := verdict.unmet) is not None:
        level = "error"
        texts.append(
            f"The model does not meet its requirements: {unmet} It is stored and can be "
            f"downloaded. To use it anyway, send POST /v1/models/{model_id}/publish."
        )
    return NewEvent(" ".join(texts), level, data=data)


def checkpoint_metrics(event: CheckpointSaved) -> dict[str, Any]:
    return {
        "step": event.step,
        "train_loss": event.train_loss,
        "train_mean_token_accuracy": event.train_accuracy,
        **_validation_metrics(event.validation_loss, event.validation_accuracy),
    }


def _validation_metrics(loss: float | None, accuracy: float | None) -> dict[str, float]:
    """Every evaluation uses the complete file, so OpenAI's sampled and full figures are equal."""
    if loss is None or accuracy is None:
        return {}
    return {
        "valid_loss": loss,
        "valid_mean_token_accuracy": accuracy,
        "full_valid_loss": loss,
        "full_valid_mean_token_accuracy": accuracy,
    }


def _lines(lines: tuple[int, ...], count: int) -> str:
    shown = ", ".join(str(line) for line in lines[:SHOWN_LINES])
    return f"lines {shown}" + (", …" if count > SHOWN_LINES else "")
