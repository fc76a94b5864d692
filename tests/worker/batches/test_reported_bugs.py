"""Reported faults of other batch APIs, tried here; docs/lab-notes.md lists them."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.spec.batch import BatchStatus
from tests.api.batch_files import chat_line
from tests.api.live import serve
from tests.api.scripted_engine import ScriptedEngine
from tests.worker.batches.killed import attempt_until, create, ids_in, row
from tests.worker.batches.test_answering import responses
from tests.worker.workshop import Workshop


@pytest.fixture(autouse=True)
def engine(workshop: Workshop) -> Iterator[ScriptedEngine]:
    engine = ScriptedEngine()
    with serve(engine.app) as url:
        workshop.engine_at(url)
        yield engine


def test_batches_with_the_same_ids_at_once_keep_their_answers(
    workshop: Workshop, engine: ScriptedEngine
) -> None:
    """sglang 4026."""
    plain = [chat_line(n) for n in range(6)]
    seeds = [chat_line(n, "say the seed") for n in range(6)]
    for line in seeds:
        line["body"]["seed"] = 7
    ids = [create(workshop, lines) for lines in (plain, seeds)]
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda _: attempt_until(workshop, None), ids))
    for batch_id, text in zip(ids, ("The answer is forty-two.", "7"), strict=True):
        found = responses(workshop, batch_id)
        assert len(found) == 6
        for response in found.values():
            assert response["body"]["choices"][0]["message"]["content"] == text
    sent = [request.id for request in engine.requests]
    assert len(set(sent)) == 12 and not any("line-" in id_ for id_ in sent)


def test_batch_of_errors_only_has_no_output_file(workshop: Workshop) -> None:
    """litellm 33987."""
    batch_id = create(workshop, [chat_line(n, "be a classifier") for n in range(3)])
    assert attempt_until(workshop, None) is None
    batch = row(workshop, batch_id)
    assert batch.status == BatchStatus.COMPLETED
    assert (batch.output_file_id, batch.completed, batch.failed) == (None, 0, 3)
    assert ids_in(workshop, batch.error_file_id) == Counter(["line-0", "line-1", "line-2"])
