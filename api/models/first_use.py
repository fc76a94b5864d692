"""Checks the parity of an unchecked model at its first request.

Checkpoints are published during their run, and a final model may be published while no engine is
available. The first request to such a model waits until some rows of its job have been replayed, as
the worker does for final models. If no engine answers in time, or the check fails, the model
answers unchecked.
"""

import asyncio
import logging
from functools import partial

import anyio
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.auth.caller import Caller
from api.models.service import find_model
from core.errors import TunesmithError, Unavailable
from core.inference.targets import Target
from core.parity.asking import (
    Candidate,
    Replies,
    Reply,
    classification_request,
    generation_request,
    labelled_reply,
    written_reply,
)
from core.parity.refusal import CHECK_FAILED, refused, unanswered, unchecked, unreadable
from core.parity.verdict import judge
from core.records.parity import UnderCheck, begin_check, end_check
from core.spec.engine_calls import CLASSIFY
from core.spec.ids import ModelId
from core.spec.parity import Parity, ParityReference, ReplayedRow, ReplayedText

logger = logging.getLogger(__name__)

CHECK_SECONDS = 60.0
"""For all rows: the longest wait of the first request."""
SLACK_SECONDS = 15.0
"""After this time, a check of another process counts as dead."""
RETRY_SECONDS = 60.0
"""Between two attempts while no engine is available."""
POLL_SECONDS = 0.5


async def answering_target(state: AppState, caller: Caller, name: ModelId) -> Target:
    """Return the model with this name, after its check if an engine is available.

    Raises NotFound `model_not_found`, or Conflict `parity_failed` for a withheld model.
    """
    target = await run_in_threadpool(find_model, state, caller, name)
    if not target.is_to_be_checked or target.adapter is None:
        return target
    key = target.id, target.adapter.sha256
    await state.parity_checks.join(key, partial(_check, state, caller, target))
    return await run_in_threadpool(find_model, state, caller, name)


async def _check(state: AppState, caller: Caller, target: Target) -> None:
    """Check the model, or wait while another process does."""
    assert target.adapter is not None
    candidate = Candidate(target.base, target.adapter, caller.project)

    def begin() -> ParityReference | UnderCheck | None:
        seconds = CHECK_SECONDS + SLACK_SECONDS
        with state.database.writing() as session:
            return begin_check(session, target.id, candidate.bundle.sha256, seconds)

    def end(parity: Parity | None) -> None:
        with state.database.writing() as session:
            end_check(session, target.id, candidate.bundle.sha256, parity, RETRY_SECONDS)

    try:
        while isinstance(taken := await run_in_threadpool(begin), UnderCheck):
            await asyncio.sleep(POLL_SECONDS)
    except ValidationError:
        logger.exception("The parity reference of %s is invalid.", target.id)
        await run_in_threadpool(end, unchecked(CHECK_FAILED))
        return
    if taken is None:
        return
    parity = None
    try:
        parity = await _verdict(state, taken, candidate)
        logger.info("Parity of %s: %s (%s).", target.id, parity.status, parity.reason)
    finally:  # the caller may have left: then the next one starts at once
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(end, parity)


async def _verdict(state: AppState, reference: ParityReference, candidate: Candidate) -> Parity:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return judge(reference, await _replies(state, reference, candidate))
    except TimeoutError:
        return unchecked(f"no engine answered within {CHECK_SECONDS:.0f} s")
    except Unavailable as error:  # `adapter_corrupt` too: the copy of one engine may be damaged
        return unanswered(error)
    except TunesmithError as error:
        return refused(error)
    except ValidationError as error:
        logger.warning("The engine's answer is invalid: %s", error)
        return unreadable(error)
    except Exception:
        logger.exception("The parity check of %s failed.", candidate.bundle.key)
        return unchecked(CHECK_FAILED)


async def _replies(state: AppState, reference: ParityReference, candidate: Candidate) -> Replies:
    async def ask(row: ReplayedRow | ReplayedText) -> Reply:
        if isinstance(row, ReplayedText):
            asked = classification_request(row, candidate)
            return labelled_reply(row, await state.engines.ask(CLASSIFY, asked))
        request = generation_request(row, candidate)
        events = [event async for event in state.engines.generate(request)]
        return written_reply(row, events)

    tasks = [asyncio.ensure_future(ask(row)) for row in reference.rows]
    try:
        rows = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Replies(tuple(rows))
