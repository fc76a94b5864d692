"""What rounding does to the figures of a model, and what of a difference it does not explain.

The size of a difference says little by itself: a deep model in bf16 is as far from itself. So it is
compared with what was measured of this very model on these very rows. Direction says more than
size. Let d be what the engine adds to training's figures, and a what the lack of a module adds.
d·a / a·a is 0 on average for rounding, which knows nothing of modules, and 1 for an engine that
ignores the module, however small a is beside the rounding of one token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.spec.parity import NumberFormat, ParityReference

_PRIOR_REPEATS = 4
"""The deviation of a single token is drawn towards that of all, as so many repeats would do."""
_LEAST_DEVIATION = 1e-6
_LEAST_SIGNAL = 4.0
"""Deviations by which a change must exceed what rounding makes of no change at all."""
MANTISSA_BITS: dict[NumberFormat, int] = {"fp32": 23, "fp16": 10, "bf16": 7}


def is_coarser(one: NumberFormat, other: NumberFormat) -> bool:
    return MANTISSA_BITS[one] < MANTISSA_BITS[other]


@dataclass(frozen=True)
class Share:
    """How much of a known change is in a difference: 0 none, 1 all; and how far that may be off."""

    value: float
    error: float

    def is_beyond(self, least: float, errors: float) -> bool:
        """Say whether it is more than `least`, and than so many times its error."""
        return self.value > max(least, errors * self.error)


@dataclass(frozen=True)
class Rounding:
    """The figures of a model beside some repeats that were rounded otherwise, in nats."""

    figures: tuple[float, ...]
    repeats: tuple[tuple[float, ...], ...]

    @classmethod
    def measured(cls, reference: ParityReference, precision: NumberFormat) -> "Rounding":
        """Return what was measured of arithmetic in `precision`, or else in that of training.

        What fp16 does to a model trained in fp32 is an eighth of what bf16 does: errors grow with
        the step.
        """
        found, scale = _repeats(reference, precision), 1.0
        if not found and is_coarser(precision, reference.precision):
            found = _repeats(reference, "bf16")
            scale = 2.0 ** (MANTISSA_BITS["bf16"] - MANTISSA_BITS[precision])
        figures = reference.figures
        return cls(
            figures,
            tuple(
                tuple(a + scale * (b - a) for a, b in zip(figures, repeat, strict=True))
                for repeat in found or _repeats(reference, reference.precision)
            ),
        )

    @property
    def mean(self) -> float:
        differences = self._differences()
        return sum(differences) / len(differences)

    @property
    def max(self) -> float:
        return max(self._differences())

    def share_of(self, changed: Sequence[float], said: Sequence[float]) -> Share | None:
        """Return how much of the change to `changed` there is in what the engine `said`.

        `changed` may end early. None where the change cannot be told from rounding.
        """
        share = self._share(changed, said, self.repeats)
        if share is None or len(self.repeats) < 2:
            return share
        # the same of each repeat, as if an engine had said it: what rounding gives by chance
        by_chance = [
            self._share(changed, repeat, (*self.repeats[:place], *self.repeats[place + 1 :]))
            for place, repeat in enumerate(self.repeats)
        ]
        squares = [each.value**2 for each in by_chance if each is not None]
        error = math.sqrt(sum(squares) / len(squares)) if squares else 0.0
        return Share(share.value, max(share.error, error))

    def _differences(self) -> list[float]:
        return [
            abs(b - a) for repeat in self.repeats for a, b in zip(self.figures, repeat, strict=True)
        ]

    def _deviations(self) -> list[float]:
        """Return how far two roundings of each figure are apart (quadratic mean)."""
        every = self._differences()
        of_all = sum(each**2 for each in every) / len(every)
        count = len(self.repeats)
        squares = [
            sum((repeat[place] - figure) ** 2 for repeat in self.repeats)
            for place, figure in enumerate(self.figures)
        ]
        return [
            math.sqrt((square + _PRIOR_REPEATS * of_all) / (count + _PRIOR_REPEATS))
            + _LEAST_DEVIATION
            for square in squares
        ]

    def _share(
        self,
        changed: Sequence[float],
        said: Sequence[float],
        repeats: Sequence[Sequence[float]],
    ) -> Share | None:
        """Project `said` on the change, both in deviations.

        The change is measured from the mean of the repeats: measured from the figures themselves,
        their rounding would be in both and look like a part of it.
        """
        along = energy = 0.0
        deviations = self._deviations()
        for place, there in enumerate(changed):
            centre = sum(repeat[place] for repeat in repeats) / len(repeats)
            change = (there - centre) / deviations[place]
            along += change * (said[place] - self.figures[place]) / deviations[place]
            energy += change**2
        # a deviation is that of two roundings: the change holds those of one and of a mean
        of_rounding = len(changed) * (1 + 1 / len(repeats)) / 2
        signal = energy - of_rounding
        if signal <= _LEAST_SIGNAL * of_rounding * math.sqrt(2 / len(changed)):
            return None
        return Share(along / signal, math.sqrt(energy) / signal)


def _repeats(reference: ParityReference, precision: NumberFormat) -> tuple[tuple[float, ...], ...]:
    return tuple(each.figures for each in reference.repeats if each.precision == precision)
