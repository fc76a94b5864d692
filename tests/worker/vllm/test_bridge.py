"""What the bridge refuses, survives and tells."""

import json
import threading

import httpx
import pytest

from core.spec.bundle import BundleRef
from core.spec.engine_protocol import EngineReport
from core.spec.strategy import BottleneckSpec, FullSpec, LoraSpec, PrefixSpec, PromptSpec
from tests.leaving import leave_when
from tests.worker.serving import BASE, TIMEOUT_SECONDS, body, events, text_of, wait_until
from tests.worker.vllm.fake import envelope
from tests.worker.vllm.serving import bridging, settings_for
from worker.vllm.__main__ import report
from worker.vllm.settings import VllmSettings

TEXT = {"type": "text", "text": "The list has"}


def refused(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert error["message"]
    return response.status_code, error["code"]


@pytest.mark.parametrize(
    "strategy",
    [
        FullSpec(),
        BottleneckSpec(),
        PrefixSpec(virtual_tokens=2),
        PromptSpec(virtual_tokens=2),
        LoraSpec(rank=2, use_dora=True),
        LoraSpec(rank=2, target_modules=("q_proj",), modules_to_save=("lm_head",)),
    ],
    ids=lambda strategy: strategy.type + "-dora" * getattr(strategy, "use_dora", False),
)
def test_what_vllm_cannot_run_is_refused_from_the_manifest(service, fake, make_adapter, strategy):
    response = service.generate(adapter=make_adapter(strategy))
    assert refused(response) == (421, "unsupported_adapter")
    assert "It runs lora and qlora" in response.json()["error"]["message"]
    assert not (fake.calls or fake.asked)


def test_a_merged_form_and_texts_to_label_are_for_other_engines(service, adapters):
    asked = body(adapter=adapters[0]) | {"serving": {"form": "merged"}}
    assert refused(service.client.post("/generate", json=asked)) == (421, "unsupported_adapter")
    asked = {"id": "r", "base": BASE.model_dump(), "texts": ["a"]}
    for path in ("/classify", "/embed"):
        assert refused(service.client.post(path, json=asked)) == (421, "unsupported_adapter")


def test_another_base_is_refused_with_both_names(service):
    asked = body() | {"base": BASE.model_dump() | {"id": "other"}}
    response = service.client.post("/generate", json=asked)
    assert refused(response) == (421, "base_not_served")
    assert "tiny" in response.json()["error"]["message"]


def test_the_tokenizer_of_its_base_is_served_here(service, adapters):
    for adapter in (None, adapters[0]):
        asked = {"id": "t", "base": BASE.model_dump(), "adapter": adapter, "prompt": TEXT}
        tokens = service.client.post("/tokenize", json=asked).json()["tokens"]
        assert len(tokens) > 0
    asked = {"id": "t", "base": BASE.model_dump(), "tokens": tokens}
    assert service.client.post("/detokenize", json=asked).json()["text"] == TEXT["text"]
    asked["base"]["id"] = "other"
    assert refused(service.client.post("/detokenize", json=asked)) == (421, "base_not_served")


def test_an_adapter_is_loaded_once_however_many_ask(service, fake, adapters):
    def ask() -> None:
        text_of(service.generate(adapter=adapters[0], prompt=TEXT))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)
    assert fake.calls == [("load", f"tunesmith-{adapters[0]['sha256']}")]
    assert service.bridge.models.adapters == [adapters[0]["sha256"]]


def test_the_least_recently_used_adapter_is_unloaded(fake, storage, cache, adapters, make_adapter):
    third = make_adapter(LoraSpec(rank=2), seed=3)
    with bridging(settings_for(fake.url, storage, cache, max_adapters=2)) as service:
        for adapter in (*adapters, adapters[0], third):
            text_of(service.generate(adapter=adapter, prompt=TEXT))
        assert fake.calls[-1] == ("unload", f"tunesmith-{adapters[1]['sha256']}")
        assert service.bridge.models.adapters == [adapters[0]["sha256"], third["sha256"]]
        tally = service.bridge.models.tally
        assert (tally.loads, tally.evictions) == (3, 1)


def test_an_adapter_in_use_is_not_unloaded(fake, storage, cache, adapters):
    with bridging(settings_for(fake.url, storage, cache, max_adapters=1)) as service:
        text_of(service.generate(prompt=TEXT))
        fake.gate.clear()
        thread = threading.Thread(
            target=lambda: text_of(service.generate(adapter=adapters[0], prompt=TEXT))
        )
        thread.start()
        wait_until(lambda: fake.streams == 1)
        other = threading.Thread(
            target=lambda: text_of(service.generate(adapter=adapters[1], prompt=TEXT))
        )
        other.start()
        wait_until(lambda: fake.streams == 2)
        assert [call for call, _ in fake.calls] == ["load", "load"]
        fake.gate.set()
        for each in (thread, other):
            each.join(TIMEOUT_SECONDS)


def test_a_restarted_vllm_gets_its_adapters_again(service, fake, adapters):
    before = text_of(service.generate(adapter=adapters[0], prompt=TEXT))
    text_of(service.generate(adapter=adapters[1], prompt=TEXT))
    fake.restart()
    assert text_of(service.generate(adapter=adapters[0], prompt=TEXT)) == before
    assert service.bridge.models.adapters == [adapters[0]["sha256"]]


def test_a_restarted_bridge_finds_what_is_loaded(fake, storage, cache, adapters):
    for _ in range(2):
        with bridging(settings_for(fake.url, storage, cache)) as service:
            text_of(service.generate(adapter=adapters[0], prompt=TEXT))
    assert [call for call, _ in fake.calls] == ["load"]


def test_an_adapter_that_somebody_else_loaded_is_taken(service, fake, adapters, cache):
    text_of(service.generate(adapter=adapters[1], prompt=TEXT))
    name = f"tunesmith-{adapters[0]['sha256']}"
    service.bridge._files.ensure(BundleRef(**adapters[0]))
    folder = cache / adapters[0]["sha256"]
    fake.models.load(name, folder)
    fake.paths[name] = str(folder)
    text_of(service.generate(adapter=adapters[0], prompt=TEXT))
    assert fake.calls[-1] == ("load", name)


def test_a_server_that_never_knows_its_model_is_asked_twice(service, fake, adapters):
    fake.refusal = envelope(404, "The model `x` does not exist.", "NotFoundError", "model")
    assert refused(service.generate(adapter=adapters[0], prompt=TEXT)) == (503, "engine_failed")
    assert len(fake.asked) == 2


def test_a_folder_that_vllm_does_not_see_is_told(fake, storage, cache, adapters):
    settings = settings_for(fake.url, storage, cache, vllm_adapter_folder="/elsewhere")
    with bridging(settings) as service:
        response = service.generate(adapter=adapters[0], prompt=TEXT)
    assert refused(response) == (503, "adapter_not_loaded")
    message = response.json()["error"]["message"]
    assert f"/elsewhere/{adapters[0]['sha256']}" in message
    assert "TUNESMITH_ENGINE_VLLM_ADAPTER_FOLDER" in message


def test_a_server_without_lora_is_told(service, fake, adapters):
    fake.has_lora_routes = False
    response = service.generate(adapter=adapters[0], prompt=TEXT)
    assert refused(response) == (503, "adapter_not_loaded")
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in response.json()["error"]["message"]


def test_a_rank_beyond_the_servers_is_a_wrong_request(service, make_adapter):
    response = service.generate(adapter=make_adapter(LoraSpec(rank=32)), prompt=TEXT)
    assert refused(response) == (400, "unsupported_adapter")
    assert "--max-lora-rank" in response.json()["error"]["message"]


@pytest.mark.parametrize("version", ["0.11.0", "0.31.2", "nonsense"])
def test_a_server_that_is_too_old_is_not_used(service, fake, version):
    fake.version = version
    response = service.generate(prompt=TEXT)
    assert refused(response) == (503, "engine_failed")
    assert version in response.json()["error"]["message"]
    fake.version = "0.34.1rc1"
    assert text_of(service.generate(prompt=TEXT))


def test_a_wrong_key_of_vllm_is_told(fake, storage, cache):
    with bridging(settings_for(fake.url, storage, cache, vllm_key="wrong")) as service:
        response = service.generate(prompt=TEXT)
    assert refused(response) == (503, "engine_failed")
    assert "TUNESMITH_ENGINE_VLLM_KEY" in response.json()["error"]["message"]


def test_a_wrong_key_of_the_caller_is_a_401(fake, storage, cache):
    with bridging(settings_for(fake.url, storage, cache, key="mine")) as service:
        assert refused(service.generate(prompt=TEXT)) == (401, "invalid_engine_key")
    assert not fake.asked


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, (400, "engine_refused")), (503, (429, "queue_full")), (500, (503, "engine_failed"))],
)
def test_refusals_of_vllm_keep_their_kind(service, fake, status, expected):
    fake.refusal = envelope(status, "No.", "SomeError")
    assert refused(service.generate(prompt=TEXT)) == expected


def test_a_fault_before_the_first_token_is_a_503_and_after_it_a_line(service, fake):
    fake.breaks_after = 0
    assert refused(service.generate(prompt=TEXT)) == (503, "engine_failed")
    fake.breaks_after = 2
    found = events(service.generate(prompt=TEXT))
    assert (found[0]["type"], found[-1]["type"]) == ("started", "failed")
    assert found[-1]["code"] == "engine_failed"


def test_a_refusal_in_the_stream_is_a_400(fake, storage, cache, monkeypatch):
    monkeypatch.setattr("tests.worker.vllm.contract.MAX_LOGPROBS", 5)
    with bridging(settings_for(fake.url, storage, cache)) as service:
        assert refused(service.generate(prompt=TEXT, top_logprobs=6)) == (400, "engine_refused")


def test_a_server_that_is_away_is_told_and_found_again(storage, cache):
    with bridging(settings_for("http://127.0.0.1:9", storage, cache)) as service:
        assert refused(service.generate(prompt=TEXT)) == (503, "engine_unavailable")
        assert service.client.get("/healthz").status_code == 503


@pytest.mark.parametrize("before_the_first_token", [True, False])
def test_a_client_that_leaves_ends_the_request_in_vllm(service, fake, before_the_first_token):
    text_of(service.generate(prompt=TEXT))  # vLLM has been looked at
    fake.gate.clear()
    if before_the_first_token:
        leave_when(lambda: fake.streams, service.client, "/generate", body(prompt=TEXT))
    else:
        opener = threading.Timer(0.1, fake.gate.set)
        opener.start()
        long = body(prompt=TEXT, max_tokens=900, logit_bias={"2": -100})
        with service.client.stream("POST", "/generate", json=long) as response:
            next(response.iter_lines())
    wait_until(lambda: fake.streams == 0)
    wait_until(lambda: service.bridge.is_idle and service.bridge.sequences == 0)
    fake.gate.set()


def test_choices_that_have_ended_end_the_request_in_vllm(service, fake):
    text = text_of(service.generate(prompt=TEXT, max_tokens=8))
    text_of(service.generate(prompt=TEXT, max_tokens=900, stop=[text[3:6]]))
    wait_until(lambda: fake.streams == 0)


def test_draining_refuses_what_is_new_and_stopping_ends_the_rest(service, fake):
    text_of(service.generate(prompt=TEXT))
    long = body(prompt=TEXT, max_tokens=900, logit_bias={"2": -100})
    with service.client.stream("POST", "/generate", json=long) as response:
        lines = response.iter_lines()
        next(lines)
        service.bridge.drain()
        assert refused(service.generate(prompt=TEXT)) == (503, "engine_stopping")
        assert not service.bridge.is_idle
        [task] = service.bridge._tasks
        task.get_loop().call_soon_threadsafe(service.bridge.stop)
        assert json.loads(list(lines)[-1])["code"] == "engine_stopping"


def test_health_metrics_and_report_tell_how_it_stands(service, fake, adapters, storage, cache):
    text_of(service.generate(adapter=adapters[0], prompt=TEXT))
    health = service.client.get("/healthz").json()
    sha256 = adapters[0]["sha256"]
    assert health["status"] == "ok"
    described = EngineReport.model_validate(health["report"])
    assert (described.hardware, described.bases, described.bundles) == ("vLLM", (BASE,), (sha256,))
    metrics = service.client.get("/metrics").text
    for line in ('requests_total{outcome="finished"} 1.0', "adapter_loads 1.0"):
        assert f"tunesmith_engine_{line}" in metrics
    told = report(service.bridge, settings_for(fake.url, storage, cache, max_batch=4))
    assert told == EngineReport(
        url="http://127.0.0.1:8001",
        hardware="vLLM",
        precision="fp32",
        bases=(BASE,),
        base_precisions=("fp32",),
        bundles=(sha256,),
        max_running=4,
    )
    fake.is_healthy = False
    assert service.client.get("/healthz").status_code == 503


def test_settings_name_what_is_missing(tmp_path):
    given = {"storage_folder": tmp_path, "cache_folder": tmp_path, "vllm_url": "http://gpu:8000"}
    with pytest.raises(ValueError, match="vllm_base"):
        VllmSettings(**given)
    with pytest.raises(ValueError, match="absolute"):
        VllmSettings(**given, vllm_base=BASE, vllm_adapter_folder="adapters")
    with pytest.raises(ValueError, match="TUNESMITH_ENGINE_KEY"):
        VllmSettings(**given, vllm_base=BASE, host="0.0.0.0")
