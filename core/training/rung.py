"""The pause of a run at a rung of its sweep.

The run continues later from its resume state, and then ends with the same files as without the
pause. So the evaluation here changes nothing: it is not in the curve, and neither the best
checkpoint nor early stopping depends on it.
"""

from collections.abc import Iterator
from pathlib import Path

from core.artifacts.bundle import write_bundle
from core.spec.events import Evaluated, ResumeStateSaved, RunEvent, RungReached
from core.spec.held_out import Question
from core.training.held_out import questions_of
from core.training.loop import Training, validated
from core.training.resume import save_state
from core.training.state import RunState


def pause_at_rung(
    training: Training, state: RunState, fingerprint: str, share: float, asks: bool
) -> Iterator[RunEvent]:
    """Evaluate unless this step was evaluated anyway, save the state, and report the result.

    `asks`: write a bundle as well, which answers held-out rows.
    Raises Stopped, OutOfMemory, TrainingFailed; may be repeated then.
    """
    now = state.curve[-1]
    loss, accuracy = now.valid_loss, now.valid_mean_token_accuracy
    if loss is None and training.dataset.validation_rows:
        found = validated(training, state)
        loss, accuracy = found.loss, found.accuracy
        yield Evaluated(step=state.step, loss=loss, accuracy=accuracy)
    folder = save_state(training.workspace, fingerprint, state)
    yield ResumeStateSaved(step=state.step, folder=folder)
    bundle: Path | None = None
    questions: tuple[Question, ...] = ()
    if asks:
        bundle = training.workspace.rung_folder
        write_bundle(bundle, training.bundle(state, state.step))
        questions, _ = questions_of(training)
    yield RungReached(
        step=state.step,
        share=share,
        loss=loss,
        accuracy=accuracy,
        folder=bundle,
        questions=questions,
    )
