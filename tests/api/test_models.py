"""Listing, finding and deleting models."""

from collections.abc import Callable
from urllib.parse import quote

import httpx

from core.records.engines import engine_seen
from core.spec.engine_protocol import BasePrecision, EngineReport
from core.spec.parity import Parity
from core.spec.precision import PrecisionChoice, PrecisionCost
from tests.api import as_worker
from tests.api.live import Api


def test_models_are_bases_and_tuned_ones(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    create_job()
    held = as_worker.start(api)
    as_worker.save_checkpoint(api, held, 5)
    tuned = as_worker.succeed(api, held)
    listed = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert {"tunesmith/tiny", tuned, f"{tuned}:ckpt-step-5"} <= set(listed)
    for name, model in listed.items():
        for path in (name, quote(name, safe="")):
            assert client.get(f"/v1/models/{path}").json() == model


def test_model_shows_whether_it_is_served_as_it_was_trained(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    create_job()
    held = as_worker.start(api)
    as_worker.save_checkpoint(api, held, 5)
    parity = Parity(status="passed", rows=8, tokens=99, max_difference_nats=2e-6)
    tuned = as_worker.succeed(api, held, parity)
    assert client.get(f"/v1/models/{tuned}").json()["parity"] == parity.model_dump()
    for name in (f"{tuned}:ckpt-step-5", "tunesmith/tiny"):
        assert client.get(f"/v1/models/{name}").json()["parity"] is None


def test_alias_names_its_base(client: httpx.Client) -> None:
    answer = client.get("/v1/models/qwen3-0.6b").json()
    assert answer["id"] == "Qwen/Qwen3-0.6B"


def test_deleted_model_is_gone_with_its_bundle(
    api: Api, client: httpx.Client, create_job: Callable[..., str]
) -> None:
    job_id = create_job()
    held = as_worker.start(api)
    as_worker.save_checkpoint(api, held, 5)
    tuned = as_worker.succeed(api, held)
    bundle = f"bundles/{job_id}/{held.token}/final.zip"
    assert api.state.store.exists(bundle)
    assert client.delete(f"/v1/models/{quote(tuned, safe='')}").json()["deleted"] is True
    assert not api.state.store.exists(bundle)
    assert client.get(f"/v1/models/{tuned}").status_code == 404
    assert client.get(f"/v1/models/{tuned}:ckpt-step-5").status_code == 200


def test_base_model_is_not_deleted(client: httpx.Client) -> None:
    answer = client.delete("/v1/models/tunesmith/tiny")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_deletable")
    assert client.get("/v1/models/tunesmith/tiny").status_code == 200


def test_unknown_model_is_not_found(client: httpx.Client) -> None:
    for name in ("tunesmith/none", "ft:tunesmith/tiny:default::abcdefgh", "a/b/c/d"):
        for method in ("GET", "DELETE"):
            answer = client.request(method, f"/v1/models/{name}")
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (404, "model_not_found")
            assert error["param"] == "model"


def test_a_base_shows_the_precision_that_a_living_engine_chose(
    api: Api, client: httpx.Client
) -> None:
    base = api.state.catalog.resolve("tunesmith/tiny")
    assert client.get("/v1/models/tunesmith/tiny").json()["precision"] is None
    cost = PrecisionCost(format="bf16", tokens=280, kl_nats=0.31, kl_p99_nats=2.0)
    chosen = PrecisionChoice(choice="fp32", reason="measured", cost=cost)
    report = EngineReport(
        url="http://127.0.0.1:9", precisions=(BasePrecision(base=base, precision=chosen),)
    )
    with api.state.database.writing() as session:
        engine_seen(session, report)
    shown = client.get("/v1/models/tunesmith/tiny").json()["precision"]
    assert (shown["choice"], shown["cost"]["kl_nats"]) == ("fp32", 0.31)
    listed = {model["id"]: model for model in client.get("/v1/models?state=all").json()["data"]}
    assert listed["tunesmith/tiny"]["precision"] == shown
    assert listed["Qwen/Qwen3-0.6B"]["precision"] is None
