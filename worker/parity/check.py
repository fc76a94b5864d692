"""Parity: a model is asked as users will ask it before it first answers.

The design, and what is done when nobody can be asked, is in
docs/decisions/0018-parity-knows-its-own-noise.md.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from core.errors import TunesmithError
from core.parity.asking import Candidate
from core.parity.refusal import CHECK_FAILED, refused, unanswered, unchecked, unreadable
from core.parity.verdict import judge
from core.spec.engine_protocol import kind_of
from core.spec.parity import Parity, ParityReference
from worker.coroutines import Interrupted
from worker.engine_client.find import EngineAddress
from worker.parity.replay import replay

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ParityCheck:
    """Asks whichever engine is found; `should_stop` says when the worker has to turn to others."""

    find_engine: Callable[[Candidate], EngineAddress | None]
    should_stop: Callable[[], bool]

    def __call__(self, reference: ParityReference | None, candidate: Candidate) -> Parity:
        """Return the verdict on a model. Raises Interrupted; nothing else keeps it from an end."""
        try:
            return self._verdict(reference, candidate)
        except Interrupted:
            raise
        except Exception:
            logger.exception("The check of %s failed itself.", candidate.bundle.key)
            return unchecked(CHECK_FAILED)

    def _verdict(self, reference: ParityReference | None, candidate: Candidate) -> Parity:
        if reference is None or not reference.rows:
            return unchecked(reference.missing if reference else "the run left no reference")
        engine = self.find_engine(candidate)
        if engine is None:
            return unchecked("no engine is registered")
        try:
            return judge(reference, replay(engine, reference, candidate, self.should_stop))
        except TunesmithError as error:
            return refused(error) if kind_of(error).is_lasting else unanswered(error)
        except ValidationError as error:
            logger.warning("The engine's answer cannot be read: %s", error)
            return unreadable(error)
