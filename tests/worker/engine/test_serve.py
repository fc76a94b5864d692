"""The engine streams answers over HTTP, and says what it cannot do."""

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest
import torch
from peft import LoraConfig, get_peft_model
from pydantic import SecretStr

from core.artifacts.archive import pack
from core.artifacts.manifest import write_manifest
from core.engine_client import EngineClient
from core.errors import TunesmithError
from core.models.load import load_base, load_tokenizer
from core.spec.engine_protocol import EngineHealth
from core.spec.generation import GenerationRequest
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec
from core.storage.open import open_store
from tests.leaving import leave_when
from tests.worker.serving import (
    BASE,
    HELLO,
    TIMEOUT_SECONDS,
    Gate,
    Service,
    body,
    events,
    serving,
    text_of,
    wait_until,
)
from worker.engine import app as engine_app
from worker.engine.settings import EngineSettings


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> EngineSettings:
    return EngineSettings(
        storage_folder=tmp_path_factory.mktemp("storage"),
        cache_folder=tmp_path_factory.mktemp("cache"),
        precision="fp32",
        max_batch=4,
        max_waiting=2,
    )


@pytest.fixture(scope="module")
def adapter(settings, tmp_path_factory) -> dict:
    """An adapter in storage that makes the base answer otherwise."""
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    torch.manual_seed(0)
    model = load_base(BASE, torch.float32, torch.device("cpu"))
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    tuned.save_pretrained(folder)
    load_tokenizer(BASE).save_pretrained(folder)
    strategy = LoraSpec(rank=4, alpha=8, target_modules=("q_proj", "v_proj"))
    write_manifest(folder, JobSpec(base=BASE, strategy=strategy, seed=0))
    archive = folder.with_suffix(".zip")
    sha256 = pack(folder, archive)
    open_store(settings.storage_folder).write_file("bundles/job/final.zip", archive)
    return {"key": "bundles/job/final.zip", "sha256": sha256}


@pytest.fixture(scope="module")
def shared(settings) -> Iterator[Service]:
    with serving(settings) as service:
        yield service


@pytest.fixture
def service(shared) -> Iterator[Service]:
    """The shared service, which every test must leave idle."""
    yield shared
    wait_until(shared.is_idle)


@pytest.fixture
def gate(service, monkeypatch) -> Iterator[Gate]:
    """Close the way to the device once a first prompt has been read."""
    gate = Gate()
    runner = service.engine.runner
    monkeypatch.setattr(runner, "run", gate.around(runner.run, free_steps=1))
    yield gate
    gate.opened.set()
    wait_until(service.is_idle)


def test_a_chat_streams_started_deltas_and_the_end_of_each_choice(service):
    found = events(service.generate(n=2))
    assert found[0]["type"] == "started"
    assert found[0]["prompt_tokens"] > 0
    assert [each["choice"] for each in found if each["type"] == "choice_finished"] == [0, 1]
    assert {each["type"] for each in found[1:]} == {"delta", "choice_finished"}


def test_a_choice_of_a_batch_is_one_delta(service):
    streamed = service.generate(n=2)
    batched = service.client.post("/generate", json=body(n=2) | {"background": True})
    kinds = [each["type"] for each in events(batched)]
    assert kinds == ["started", *["delta", "choice_finished"] * 2]
    assert len(events(streamed)) > len(kinds)
    assert len(text_of(batched)) == len(text_of(streamed)) > 0


def test_base_and_adapter_answer_side_by_side(service, adapter):
    base_alone = text_of(service.generate())
    tuned_alone = text_of(service.generate(adapter=adapter))
    assert base_alone != tuned_alone
    answers: dict[int, str] = {}

    def ask(index: int) -> None:
        answers[index] = text_of(service.generate(adapter=adapter if index % 2 else None))

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)
    assert answers == {0: base_alone, 1: tuned_alone}
    health = EngineHealth.model_validate(service.client.get("/healthz").json())
    report = health.report
    assert (health.status, report.status, report.url) == ("ok", "ready", "http://127.0.0.1:8001")
    assert (report.bases, report.bundles) == ((BASE,), (adapter["sha256"],))
    assert (report.precision, report.base_precisions) == ("fp32", ("fp32",))
    assert "CPU threads" in report.hardware


def counted(service) -> dict[str, float]:
    """The values of all metrics by name and labels."""
    response = service.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_tell_what_happened_and_name_nobody(service, adapter):
    before = counted(service)
    prompt = {"type": "tokens", "tokens": [5] * 40}
    text_of(service.generate(adapter=adapter, prompt=prompt, n=2))
    text_of(service.generate(adapter=adapter, prompt=prompt))
    after = counted(service)
    prefix = "tunesmith_engine_"

    def grown(name: str) -> float:
        return after[prefix + name] - before.get(prefix + name, 0.0)

    assert grown('requests_total{outcome="finished"}') == 2
    assert grown("first_token_seconds_count") == 2
    assert grown("written_tokens_total") >= 3
    assert grown("step_seconds_count") >= 2
    assert grown("prefix_cache_hits") > 0, "the prompt was read again"
    assert after[prefix + "resident_adapters"] == 1
    assert after[prefix + "waiting_sequences"] == after[prefix + "cache_use"] == 0
    labels = {name.partition("{")[2].partition("=")[0] for name in after} - {""}
    assert labels == {"outcome", "le"}


def test_each_line_is_sent_as_soon_as_it_is_produced(service, monkeypatch):
    gate = Gate()
    runner = service.engine.runner
    monkeypatch.setattr(runner, "run", gate.around(runner.run, free_steps=1))
    with service.client.stream("POST", "/generate", json=body()) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines))["type"] == "started"
        gate.opened.set()
        assert json.loads(list(lines)[-1])["type"] == "choice_finished"


@pytest.mark.parametrize(
    ("prompt", "param", "code"),
    [
        ({"type": "tokens", "tokens": [5] * 1020}, "prompt", "context_length_exceeded"),
        ({"type": "tokens", "tokens": [4096]}, "prompt", "invalid_token"),
        (HELLO | {"messages": HELLO["messages"] * 300}, "messages", "context_length_exceeded"),
    ],
)
def test_a_prompt_that_cannot_be_run_is_a_400(prompt, param, code, service):
    response = service.generate(prompt=prompt)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["message"]


@pytest.mark.parametrize(
    ("content", "param"),
    [(b"no json", None), (b"{}", "id"), (json.dumps(body(n=10**12)).encode(), "sampling.n")],
)
def test_a_body_that_is_no_request_is_a_400_with_its_field(content, param, service):
    response = service.client.post("/generate", content=content)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)


def test_an_unknown_adapter_is_a_404_and_a_corrupt_one_a_503(service, adapter):
    unknown = service.generate(adapter={"key": "bundles/none/final.zip", "sha256": "0" * 64})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "adapter_not_found")
    corrupt = service.generate(adapter=adapter | {"sha256": "0" * 64})
    assert (corrupt.status_code, corrupt.json()["error"]["code"]) == (503, "adapter_corrupt")
    assert int(corrupt.headers["retry-after"]) > 0


def test_a_full_queue_is_a_429_that_says_when_to_come_back(service, gate):
    def ask() -> None:
        text_of(service.generate(n=4))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    threads[0].start()
    wait_until(lambda: service.engine.scheduler.running == 4)
    threads[1].start()
    wait_until(lambda: bool(service.engine.scheduler.waiting))
    response = service.generate()
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
    assert int(response.headers["retry-after"]) > 0
    gate.opened.set()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)


def failing_after(run, steps: int):
    """Run so many steps, then fail."""
    left = [steps]

    def maybe(step):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("out of memory")
        return run(step)

    return maybe


def test_a_fault_before_the_first_token_is_a_503(service, monkeypatch):
    runner = service.engine.runner
    monkeypatch.setattr(runner, "run", failing_after(runner.run, 0))
    response = service.generate()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_failed")


def test_a_fault_after_the_first_token_is_a_line(service, monkeypatch):
    runner = service.engine.runner
    monkeypatch.setattr(runner, "run", failing_after(runner.run, 1))
    found = events(service.generate())
    assert found[0]["type"] == "started"
    assert (found[-1]["type"], found[-1]["code"]) == ("failed", "engine_failed")


def test_a_client_that_leaves_in_mid_stream_frees_its_slots(service, monkeypatch):
    gate = Gate()
    steps = []
    runner = service.engine.runner
    gated = gate.around(runner.run, free_steps=1)
    monkeypatch.setattr(runner, "run", lambda step: steps.append(step) or gated(step))
    with service.client.stream("POST", "/generate", json=body(n=4)) as response:
        assert json.loads(next(response.iter_lines()))["type"] == "started"
    wait_until(lambda: not service.engine._tickets)
    gate.opened.set()
    wait_until(service.is_idle)
    assert len(steps) <= 2, "a step came after the one that was under way"


def test_a_client_that_leaves_the_queue_never_runs(service, gate):
    running = threading.Thread(target=lambda: service.generate(n=4))
    running.start()
    wait_until(lambda: service.engine.scheduler.running == 4)
    leave_when(lambda: service.engine.scheduler.waiting, service.client, "/generate", body())
    wait_until(lambda: not service.engine.scheduler.waiting)
    gate.opened.set()
    running.join(TIMEOUT_SECONDS)


def test_a_preloaded_base_is_there_before_the_first_request(settings):
    with serving(settings, preload=BASE) as service:
        wait_until(lambda: service.client.get("/healthz").json()["report"]["bases"])


def test_a_model_thread_that_fails_ends_the_process(settings, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(engine_app, "_end_process", ended.set)
    with serving(settings) as service:

        def fail_to_schedule():
            raise RuntimeError("a fault outside of a step")

        monkeypatch.setattr(service.engine.scheduler, "schedule", fail_to_schedule)
        leave_when(ended.is_set, service.client, "/generate", body())


def test_a_model_thread_that_is_stopped_ends_alone(settings, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(engine_app, "_end_process", ended.set)
    with serving(settings) as service:
        service.engine.stop()
        wait_until(lambda: service.client.get("/healthz").status_code == 503)
    assert not ended.is_set()


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wr\xf6ng"}])
def test_a_caller_without_the_key_is_refused_and_health_stays_open(settings, header):
    with serving(settings.model_copy(update={"key": SecretStr("s3cret")})) as service:
        headers = {name: value.encode("latin-1") for name, value in header.items()}
        response = service.client.post("/generate", json=body(), headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_engine_key"
        assert service.client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("key", "outcome"), [(SecretStr("s3cret"), "choice_finished"), (None, "TUNESMITH_ENGINE_KEY")]
)
def test_the_client_of_the_api_sends_the_key(settings, key, outcome):
    request = GenerationRequest.model_validate_json(json.dumps(body()))

    async def ask(url: str) -> str:
        client = EngineClient(key)
        try:
            return [event.type async for event in client.generate(url, request)][-1]
        except TunesmithError as error:
            return error.message
        finally:
            await client.close()

    with serving(settings.model_copy(update={"key": SecretStr("s3cret")})) as service:
        assert outcome in asyncio.run(ask(str(service.client.base_url)))


def test_stopping_ends_open_streams_with_a_line(settings):
    with serving(settings) as service:
        gate = Gate()
        runner = service.engine.runner
        runner.run = gate.around(runner.run, free_steps=1)
        with service.client.stream("POST", "/generate", json=body()) as response:
            lines = response.iter_lines()
            next(lines)
            service.engine.stop()
            gate.opened.set()
            last = json.loads(list(lines)[-1])
        assert (last["type"], last["code"]) == ("failed", "engine_stopping")
        assert service.generate().status_code == 503
        wait_until(lambda: service.client.get("/healthz").status_code == 503)
