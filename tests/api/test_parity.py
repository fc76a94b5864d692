"""Models that are not served as they were trained, and models that nobody has checked yet."""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from api.models import first_use
from core.records.models import add_checkpoint
from core.records.owned import get_owned
from core.records.parity import begin_check
from core.records.tables import Job, TunedModel
from core.spec.generation import TextPrompt
from core.spec.parity import Parity, ParityReference, Repeat, ReplayedRow, ReplayedText
from tests.api import as_worker
from tests.api.live import Api
from tests.api.scripted_engine import ScriptedEngine

FAILED = Parity(
    status="failed", differs="template", reason="The engine's template differs.", rows=8
)
HELLO = [{"role": "user", "content": "Hello"}]
PROMPT_IDS = (1, 2)
ANSWER = (7, 8, 9)


@pytest.fixture
def failed(api: Api, create_job: Callable[..., str]) -> str:
    """The id of a model whose parity failed."""
    create_job()
    return as_worker.succeed(api, as_worker.start(api), FAILED)


def reference(logprob: float = -0.5) -> ParityReference:
    """Rows for which the scripted engine says -0.5 of every token."""
    row = ReplayedRow(
        line=1,
        prompt=TextPrompt(text="say what is given"),
        prompt_ids=PROMPT_IDS,
        answer=ANSWER,
        logprobs=(None, None, *(logprob for _ in ANSWER)),
    )
    repeat = Repeat(precision="fp32", figures=tuple(logprob + 1e-6 for _ in ANSWER))
    return ParityReference(precision="fp32", rows=(row,), repeats=(repeat, repeat))


@pytest.fixture
def checkpoint(api: Api, create_job: Callable[..., str]) -> Callable[..., str]:
    """Record a checkpoint with what training says of it; return the model's id."""

    def record(told: ParityReference | None) -> str:
        create_job()
        held = as_worker.start(api)
        name = as_worker.model_id(api, held.job_id)
        stored = as_worker.bundle(api, f"bundles/{held.job_id}/{held.token}/step-5.zip")
        with api.database.writing() as session:
            job = get_owned(session, Job, "default", held.job_id)
            add_checkpoint(session, job, name, 5, as_worker.METRICS, stored, reference=told)
        return f"{name}:ckpt-step-5"

    return record


def ask(client: httpx.Client, model: str) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"model": model, "messages": HELLO})


def parity_of(client: httpx.Client, model: str) -> dict[str, Any] | None:
    parity: dict[str, Any] | None = client.get(f"/v1/models/{model}").json()["parity"]
    return parity


def checks(engine: ScriptedEngine) -> int:
    return sum(asked.sampling.given_answer is not None for asked in engine.requests)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HELLO}),
        ("/v1/completions", {"prompt": "Hello"}),
        ("/v1/classifications", {"input": "Hello"}),
    ],
)
def test_model_that_failed_does_not_answer_and_says_how_it_would(
    client: httpx.Client, engine: ScriptedEngine, failed: str, path: str, body: dict[str, Any]
) -> None:
    answer = client.post(path, json={"model": failed} | body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (409, "parity_failed", "model")
    assert answer.headers["x-should-retry"] == "false", "it would be refused again"
    assert "The engine's template differs." in error["message"]
    assert f"POST /v1/models/{failed}/publish" in error["message"]
    assert engine.requests == [] and engine.classified == []


def test_model_that_failed_can_be_seen_and_downloaded(client: httpx.Client, failed: str) -> None:
    shown = client.get(f"/v1/models/{failed}").json()
    assert (shown["parity"], shown["published_at"]) == (FAILED.model_dump(), None)
    (job,) = client.get("/v1/fine_tuning/jobs").json()["data"]
    assert (job["status"], job["fine_tuned_model"]) == ("succeeded", failed)
    archive = client.get(f"/v1/fine_tuning/jobs/{job['id']}/adapter")
    assert archive.status_code == 200


@pytest.mark.parametrize("written", [str, lambda name: quote(name, safe="")])
def test_published_model_answers_and_keeps_its_figures(
    client: httpx.Client, failed: str, written: Callable[[str], str]
) -> None:
    published = client.post(f"/v1/models/{written(failed)}/publish").json()
    assert published["published_at"] >= published["created"]
    assert published["parity"] == FAILED.model_dump()
    assert client.get(f"/v1/models/{failed}").json() == published
    assert ask(client, failed).status_code == 200
    assert client.post(f"/v1/models/{failed}/publish").json() == published, "once is enough"
    (job,) = client.get("/v1/fine_tuning/jobs").json()["data"]
    events = client.get(f"/v1/fine_tuning/jobs/{job['id']}/events").json()["data"]
    told = [event["message"] for event in events if "published" in event["message"]]
    assert told == [f"The owner published {failed}, which is not served as it was trained."]


def test_publishing_a_model_that_has_not_failed_changes_nothing(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    create_job()
    tuned = as_worker.succeed(api, as_worker.start(api), Parity(status="passed"))
    before = client.get(f"/v1/models/{tuned}").json()
    answer = client.post(f"/v1/models/{tuned}/publish")
    assert (answer.status_code, answer.json()) == (200, before)


def test_bases_and_unknown_models_are_not_published(client: httpx.Client) -> None:
    base = client.post("/v1/models/tunesmith/tiny/publish")
    assert (base.status_code, base.json()["error"]["code"]) == (400, "model_not_tuned")
    unknown = client.post("/v1/models/ft:tunesmith/tiny:default::abcdefgh/publish")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_checkpoint_is_checked_when_it_is_first_asked_and_once(
    client: httpx.Client, engine: ScriptedEngine, checkpoint: Callable[..., str]
) -> None:
    name = checkpoint(reference())
    assert parity_of(client, name) is None
    assert [ask(client, name).status_code for _ in range(3)] == [200] * 3
    parity = parity_of(client, name)
    assert parity is not None
    assert (parity["status"], parity["rows"], parity["tokens"]) == ("passed", 1, 3)
    assert parity["engine_precision"] == "fp32"
    assert checks(engine) == 1


def test_checkpoint_that_fails_is_refused_at_once_and_answers_once_published(
    client: httpx.Client, checkpoint: Callable[..., str]
) -> None:
    name = checkpoint(reference(-1.5))
    for _ in range(2):
        answer = ask(client, name)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "parity_failed")
    assert client.post(f"/v1/models/{name}/publish").json()["published_at"] is not None
    assert ask(client, name).status_code == 200


def test_many_first_requests_check_once(
    api: Api, engine: ScriptedEngine, checkpoint: Callable[..., str]
) -> None:
    name = checkpoint(reference())
    statuses: list[int] = []

    def request() -> None:
        with httpx.Client(base_url=api.url, timeout=60) as client:
            statuses.append(ask(client, name).status_code)

    threads = [threading.Thread(target=request) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 12
    assert checks(engine) == 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(first_use, "POLL_SECONDS", 0.05)
    yield


def test_verdict_of_another_process_is_waited_for(
    api: Api,
    client: httpx.Client,
    engine: ScriptedEngine,
    checkpoint: Callable[..., str],
    impatient: None,
) -> None:
    name = checkpoint(reference())
    with api.database.reading() as session:
        model = session.get(TunedModel, name)
        assert model is not None
        sha256 = model.bundle_sha256
    with api.database.writing() as session:
        assert isinstance(begin_check(session, name, sha256, 60), ParityReference)

    def end_elsewhere() -> None:
        with api.database.writing() as session:
            first_use.end_check(session, name, sha256, FAILED, 60)

    timer = threading.Timer(0.5, end_elsewhere)
    timer.start()
    assert ask(client, name).status_code == 409
    timer.join()
    assert checks(engine) == 0


def test_check_of_a_process_that_died_is_taken_over(
    api: Api,
    client: httpx.Client,
    engine: ScriptedEngine,
    checkpoint: Callable[..., str],
    impatient: None,
) -> None:
    name = checkpoint(reference())
    with api.database.writing() as session:
        model = session.get(TunedModel, name)
        assert model is not None
        begin_check(session, name, model.bundle_sha256, 0.5)
    assert ask(client, name).status_code == 200
    assert checks(engine) == 1


@pytest.mark.parametrize("mood", ["full", "stopping", "breaking"])
def test_engine_that_is_busy_leaves_it_unchecked_and_is_asked_later(
    client: httpx.Client,
    engine: ScriptedEngine,
    checkpoint: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    mood: Any,
) -> None:
    monkeypatch.setattr(first_use, "RETRY_SECONDS", 0.0)
    name = checkpoint(reference(-1.5))
    engine.mood = mood
    assert ask(client, name).status_code in (429, 503), "of the engine itself"
    parity = parity_of(client, name)
    assert parity is not None and parity["status"] == "unchecked"
    assert parity["reason"].startswith("the engine did not answer")
    engine.mood = "well"
    assert ask(client, name).status_code == 409


def test_unchecked_model_answers_until_the_next_attempt(
    client: httpx.Client, engine: ScriptedEngine, checkpoint: Callable[..., str]
) -> None:
    name = checkpoint(reference(-1.5))
    engine.mood = "full"
    ask(client, name)
    engine.mood = "well"
    assert ask(client, name).status_code == 200


def test_slow_engine_leaves_it_unchecked_and_answers(
    client: httpx.Client,
    engine: ScriptedEngine,
    checkpoint: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(first_use, "CHECK_SECONDS", 0.3)
    told = reference()
    slow = told.rows[0].model_copy(update={"prompt": TextPrompt(text="think for ever")})
    name = checkpoint(told.model_copy(update={"rows": (slow,)}))
    assert ask(client, name).status_code == 200
    parity = parity_of(client, name)
    assert parity is not None and parity["status"] == "unchecked"


def test_check_that_fails_itself_leaves_it_unchecked_and_answers(
    client: httpx.Client, engine: ScriptedEngine, checkpoint: Callable[..., str]
) -> None:
    """A repeat with too few figures cannot be compared; nothing of that is the user's doing."""
    told = reference()
    short = told.repeats[0].model_copy(update={"figures": told.repeats[0].figures[:1]})
    name = checkpoint(told.model_copy(update={"repeats": (short, short)}))
    assert [ask(client, name).status_code for _ in range(2)] == [200] * 2
    parity = parity_of(client, name)
    assert parity is not None
    assert (parity["status"], parity["reason"]) == ("unchecked", "the check itself failed")
    assert checks(engine) == 1, "it is not tried again at once"


def test_reference_that_cannot_be_read_leaves_it_unchecked_and_answers(
    api: Api, client: httpx.Client, engine: ScriptedEngine, checkpoint: Callable[..., str]
) -> None:
    name = checkpoint(reference())
    with api.database.writing() as session:
        model = session.get(TunedModel, name)
        assert model is not None
        model.parity_reference = {"rows": "of another version"}
    assert ask(client, name).status_code == 200
    parity = parity_of(client, name)
    assert parity is not None
    assert (parity["status"], parity["reason"]) == ("unchecked", "the check itself failed")
    assert checks(engine) == 0


def test_classifier_is_checked_by_its_labels(
    client: httpx.Client, engine: ScriptedEngine, checkpoint: Callable[..., str]
) -> None:
    row = ReplayedText(line=1, text="short", logprobs={"spam": -5.0, "ham": -0.007})
    repeat = Repeat(precision="fp32", figures=row.figures)
    name = checkpoint(ParityReference(precision="fp32", rows=(row,), repeats=(repeat, repeat)))
    answer = client.post("/v1/classifications", json={"model": name, "input": "Hello"})
    assert answer.status_code == 409
    assert len(engine.classified) == 1


def test_model_without_a_reference_answers_as_before(
    client: httpx.Client, engine: ScriptedEngine, checkpoint: Callable[..., str]
) -> None:
    name = checkpoint(None)
    assert ask(client, name).status_code == 200
    assert (parity_of(client, name), checks(engine)) == (None, 0)


def test_final_model_that_was_left_unchecked_is_checked_too(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    create_job()
    unchecked = Parity(status="unchecked", reason="no engine is registered")
    tuned = as_worker.succeed(api, as_worker.start(api), unchecked, reference(-1.5))
    assert ask(client, tuned).status_code == 409
