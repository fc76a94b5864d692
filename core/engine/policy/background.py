"""How much background work may delay live streams.

Background sequences that join a step of live streams make it longer: hardly on a GPU, several times
on a CPU. The delay is measured, and limited to a share of the streams' time. So live streams are
almost as fast as alone, and background work never stops completely while they run.
"""

from core.engine.policy.step import Step

SHARE = 0.1
"""The delay of live streams by background work, as a share of their time."""
LONGEST_CREDIT_SECONDS = 0.05
"""Limits how much background work may follow a long time without any."""
LONGEST_DEBT_SECONDS = 1.0
"""Limits how long background work is paused after one slow step, such as one that loads a model."""
REFRESH_STEPS = 32
"""A step of live streams alone is measured at least as often."""
_WEIGHT = 0.2
"""Of the newest step in the average."""


class BackgroundShare:
    """Decides whether background work may join the next step beside live streams."""

    def __init__(self) -> None:
        self._alone_seconds: float | None = None
        """The average step of live streams alone."""
        self._credit_seconds = 0.0
        self._steps_since_alone = 0

    def may_join(self) -> bool:
        """Return whether background work may join, or take, the next step."""
        return (
            self._alone_seconds is not None
            and self._credit_seconds >= 0
            and self._steps_since_alone < REFRESH_STEPS
        )

    def note(self, step: Step, seconds: float) -> None:
        """Record a step that ran while live sequences waited or ran."""
        has_live = any(not chunk.sequence.is_background for chunk in step.chunks)
        has_background = any(chunk.sequence.is_background for chunk in step.chunks)
        delay_seconds = 0.0
        if not has_background:
            self._steps_since_alone = 0
            if all(chunk.end - chunk.start == 1 for chunk in step.chunks):  # no prompt
                known = self._alone_seconds
                change = 0.0 if known is None else (1 - _WEIGHT) * (known - seconds)
                self._alone_seconds = seconds + change
        elif has_live:
            self._steps_since_alone += 1
            delay_seconds = max(0.0, seconds - (self._alone_seconds or 0.0))
        else:
            delay_seconds = seconds
        credit_seconds = self._credit_seconds - delay_seconds
        credit_seconds += SHARE * (seconds - delay_seconds)
        self._credit_seconds = max(
            -LONGEST_DEBT_SECONDS, min(credit_seconds, LONGEST_CREDIT_SECONDS)
        )
