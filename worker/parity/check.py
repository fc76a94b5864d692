"""Parity: compares a model at an engine with training, before the model answers users.

docs/decisions/0018-parity-measures-its-own-noise.md has the design, and what
happens if no engine is available.
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
    """Checks at any engine that `find_engine` returns, until `should_stop` is true."""

    find_engine: Callable[[Candidate], EngineAddress | None]
    should_stop: Callable[[], bool]

    def __call__(self, reference: ParityReference | None, candidate: Candidate) -> Parity:
        """Return the verdict on a model. Raises Interrupted; any other error becomes a verdict."""
        try:
            return self._verdict(reference, candidate)
        except Interrupted:
            raise
        except Exception:
            logger.exception("The parity check of %s failed.", candidate.bundle.key)
            return unchecked(CHECK_FAILED)

    def _verdict(self, reference: ParityReference | None, candidate: Candidate) -> Parity:
        if reference is None or not reference.rows:
            return unchecked(reference.missing if reference else "the run has no parity reference")
        engine = self.find_engine(candidate)
        if engine is None:
            return unchecked("no engine is registered")
        try:
            return judge(reference, replay(engine, reference, candidate, self.should_stop))
        except TunesmithError as error:
            return refused(error) if kind_of(error).is_lasting else unanswered(error)
        except ValidationError as error:
            logger.warning("The engine's response cannot be parsed: %s", error)
            return unreadable(error)
