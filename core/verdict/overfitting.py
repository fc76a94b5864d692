"""Whether a run has overfitted, from its curves."""

from collections.abc import Sequence

from core.spec.held_out import CurvePoint
from core.spec.verdict import Overfitting

RISE = 0.02
"""The generalization loss of Prechelt 1998, "Early Stopping — But When?": the held-out loss as a
share above its lowest value so far. His thresholds are 1 to 5 %. Every evaluation is on the same
rows, so a rise is no effect of other rows."""


def overfitting_of(curve: Sequence[CurvePoint]) -> Overfitting:
    """Return what the curve says: the model overfits if its losses part after the best evaluation.

    `overfitted`: the last held-out loss is more than `RISE` above the lowest, while the training
    loss has fallen since. If it has not fallen, both losses rise, and the run diverges.
    """
    if len(curve) < 2:
        return Overfitting(
            status="unknown",
            reason="The check of overfitting needs two evaluations on held-out rows; the run had "
            f"{len(curve)}. Set evaluation.every_steps to have more.",
        )
    best, last = min(curve, key=lambda point: point.held_out_loss), curve[-1]
    rise = last.held_out_loss / best.held_out_loss - 1 if best.held_out_loss > 0 else 0.0
    facts = {"best_step": best.step, "last_step": last.step, "rise": rise}
    losses = f"the held-out loss was lowest at step {best.step} ({best.held_out_loss:.3g})"
    if best is last:
        reason = f"No overfitting: {losses}, the last one."
        return Overfitting(status="none", reason=reason, **facts)
    losses += f" and {last.held_out_loss:.3g} at step {last.step}"
    if rise <= RISE:
        reason = f"No overfitting: {losses}."
        return Overfitting(status="none", reason=reason, **facts)
    if last.train_loss < best.train_loss:
        reason = f"Overfitted: {losses}, while the training loss fell"
        return Overfitting(status="overfitted", reason=f"{reason} ({_train(best, last)}).", **facts)
    reason = f"Diverged: {losses}, and the training loss did not fall either"
    hint = "Lower the learning rate."
    return Overfitting(
        status="diverged", reason=f"{reason} ({_train(best, last)}). {hint}", **facts
    )


def _train(best: CurvePoint, last: CurvePoint) -> str:
    return f"from {best.train_loss:.3g} to {last.train_loss:.3g}"
