"""A model that nobody has checked is checked when it is first asked.

Checkpoints are published while their run goes on, and a final model while no engine can be asked.
Whoever asks such a model first waits until some rows of its job have been asked for, as the worker
asks for those of a final model. When no engine answers in time, or the check itself fails, the
model answers unchecked.
"""

import asyncio
import logging
from functools import partial

import anyio
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from api.app_state import AppState
from api.auth.caller import Caller
from api.models.service import Target, find_target
from core.errors import TunesmithError, Unavailable
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
from core.spec.ids import ModelId
from core.spec.parity import Parity, ParityReference, ReplayedRow, ReplayedText

logger = logging.getLogger(__name__)

CHECK_SECONDS = 60.0
"""For all rows: the first request for the model waits so long at most."""
SLACK_SECONDS = 15.0
"""After which a check of another process is taken to have died with it."""
RETRY_SECONDS = 60.0
"""Between two attempts while no engine answers."""
POLL_SECONDS = 0.5


async def answering_target(state: AppState, caller: Caller, name: ModelId) -> Target:
    """Return the model that a request names, checked if an engine can be asked.

    NotFound `model_not_found`; Conflict `parity_failed` for a model that is withheld.
    """
    target = await run_in_threadpool(find_target, state, caller, name)
    if not target.is_to_be_checked or target.adapter is None:
        return target
    key = target.id, target.adapter.sha256
    await state.parity_checks.join(key, partial(_check, state, caller, target))
    return await run_in_threadpool(find_target, state, caller, name)


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
        logger.exception("The parity reference of %s cannot be read.", target.id)
        await run_in_threadpool(end, unchecked(CHECK_FAILED))
        return
    if taken is None:
        return
    parity = None
    try:
        parity = await _verdict(state, taken, candidate)
        logger.info("Parity of %s: %s (%s).", target.id, parity.status, parity.reason)
    finally:  # whoever waited may have left: then the next one begins at once
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
        logger.warning("The engine's answer cannot be read: %s", error)
        return unreadable(error)
    except Exception:
        logger.exception("The check of %s failed itself.", candidate.bundle.key)
        return unchecked(CHECK_FAILED)


async def _replies(state: AppState, reference: ParityReference, candidate: Candidate) -> Replies:
    async def ask(row: ReplayedRow | ReplayedText) -> Reply:
        if isinstance(row, ReplayedText):
            answer = await state.engines.classify(classification_request(row, candidate))
            return labelled_reply(row, answer)
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
