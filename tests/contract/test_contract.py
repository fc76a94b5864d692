"""Every route answers as the published description says, when it works and when it refuses."""

from collections.abc import Callable

import httpx
from jsonschema import Draft202012Validator

from core.records.masks import record_job_mask
from core.records.owned import get_owned
from core.records.projects import DEFAULT_PROJECT
from core.records.tables import Job
from core.records.workers import worker_seen
from core.tasks.kinds import Queue
from tests.api import as_worker
from tests.api.distilling import ROUTE as DISTILLATIONS
from tests.api.exporting import finish_export
from tests.api.light_worker import light_worker_of
from tests.api.live import Api
from tests.api.test_evaluation import VERDICT
from tests.contract.contract import OUR_ROUTES, CheckedClient, Route, check_schema, contract
from tests.contract.uses import (
    GRADERS,
    JOBS,
    SWEEPS,
    look_at_job,
    use_batches,
    use_distillations,
    use_evals,
    use_graders,
    use_made_models,
    use_responses,
    use_stored_completions,
    use_sweeps,
)

MASKS = "/v1/fine_tuning/masks"
COMPARISONS = "/v1/fine_tuning/comparisons"
STRATEGIES = "/v1/fine_tuning/strategies"
ESTIMATES = "/v1/fine_tuning/estimates"

LATER = (
    "/fine_tuning/checkpoints/",
    "/organization/",
)
"""The beginnings of paths that docs/api.md lists as not offered yet."""

NOT_SERVED: dict[Route, str] = {
    ("POST", "/uploads"): "large files go through /files, which streams",
    ("POST", "/uploads/{upload_id}/parts"): "as above",
    ("POST", "/uploads/{upload_id}/complete"): "as above",
    ("POST", "/uploads/{upload_id}/cancel"): "as above",
    **dict.fromkeys(
        (
            (method, path)
            for path, item in contract()["paths"].items()
            for method in map(str.upper, item)
            if path.startswith(LATER)
        ),
        "not offered yet",
    ),
}
NEVER_REFUSED: frozenset[Route] = frozenset(
    {("GET", "/models"), ("GET", "/health"), ("GET", "/healthz")}
)


def use_exports(api: Api, client: httpx.Client, tuned: str) -> None:
    created = client.post(f"/v1/models/{tuned}/exports", json={"format": "merged"})
    assert created.status_code == 200, created.text
    assert client.get(f"/v1/models/{tuned}/exports").json()["data"] == [created.json()]
    export = f"/v1/exports/{created.json()['id']}"
    assert client.get(export).json() == created.json()
    assert client.get(f"{export}/content").status_code == 409
    finish_export(api, created.json()["id"])
    assert client.get(export).json()["status"] == "succeeded"
    assert client.get(f"{export}/content").status_code == 200
    assert client.delete(export).json()["deleted"]


def use_every_route(
    api: Api, client: httpx.Client, upload: Callable[..., str], create_job: Callable[..., str]
) -> None:
    """Let every route succeed; the client checks each answer."""
    file_id = upload()
    upload(b"not json\n")
    for path in ("", f"/{file_id}", f"/{file_id}/content", "?purpose=fine-tune-results"):
        assert client.get(f"/v1/files{path}").status_code == 200
    assert client.get(f"/v1/files/{file_id}/report").status_code == 200

    job_id = create_job(metadata={"a": "b"}, suffix="mine", seed=1)
    look_at_job(client, job_id)
    held = as_worker.start(api)
    look_at_job(client, job_id)
    as_worker.save_checkpoint(api, held)
    as_worker.succeed(api, held, verdict=VERDICT)
    look_at_job(client, job_id)
    assert client.get(f"{JOBS}/{job_id}/evaluation").status_code == 200
    compared = {"models": ["tunesmith/tiny", as_worker.model_id(api, job_id)], "file": file_id}
    comparison_id = client.post(COMPARISONS, json=compared).json()["id"]
    assert client.get(f"{COMPARISONS}/{comparison_id}").status_code == 200
    assert client.get(f"{JOBS}/{job_id}/adapter").status_code == 200
    create_job()
    as_worker.fail(api, as_worker.start(api))
    audit = {"model": "tunesmith/tiny", "training_file": file_id}
    mask_id = client.post(MASKS, json=audit).json()["id"]
    assert client.get(f"{MASKS}/{mask_id}").status_code == 200
    for path in ("", "/picture"):
        assert client.get(f"{STRATEGIES}{path}?model=tiny").status_code == 200
    dry_run = client.post(ESTIMATES, json=audit | {"dry_run": True}).json()["id"]
    assert client.get(f"{ESTIMATES}/{dry_run}").status_code == 200
    masked = create_job()
    with api.database.writing() as session:
        record_job_mask(session, get_owned(session, Job, DEFAULT_PROJECT, masked), [])
    assert client.get(f"{JOBS}/{masked}/mask").status_code == 200
    cancelled = create_job()
    assert client.post(f"{JOBS}/{cancelled}/cancel").status_code == 200
    paused = create_job()
    for move in ("pause", "resume", "cancel"):
        assert client.post(f"{JOBS}/{paused}/{move}").status_code == 200
        look_at_job(client, paused)
    assert client.get(JOBS).status_code == 200
    use_sweeps(client, file_id)
    use_distillations(api, client)
    use_made_models(client, as_worker.model_id(api, job_id))

    tuned = client.get(f"{JOBS}/{job_id}").json()["fine_tuned_model"]
    assert client.get("/v1/models").status_code == 200
    assert client.get(f"/v1/models/{tuned}").status_code == 200
    with light_worker_of(api):
        speed = client.get(f"/v1/models/{tuned}/speed")
    assert speed.status_code == 200, speed.text
    use_exports(api, client, tuned)
    merged = {"form": "merged", "quantization": "nf4"}
    assert client.post(f"/v1/models/{tuned}/serving", json=merged).status_code == 200
    assert client.post(f"/v1/models/{tuned}/publish").status_code == 200
    chat = {"model": tuned, "messages": [{"role": "user", "content": "hello"}]}
    text = {"model": tuned, "prompt": ["hello", "again"], "logprobs": 2, "n": 2}
    for body in (chat, chat | {"n": 2, "logprobs": True, "top_logprobs": 2, "stream": True}):
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    assert client.post("/v1/completions", json=text).status_code == 200
    use_responses(api, client, tuned)
    texts = {"model": tuned, "input": ["hello", "again"]}
    assert client.post("/v1/classifications", json=texts).status_code == 200
    use_batches(api, client)
    use_evals(api, client)
    use_stored_completions(client, chat)
    for method in ("POST", "GET"):  # after the batches: no hub answers, which a worker finds slowly
        assert client.request(method, "/v1/models/qwen3-0.6b/download").status_code == 200
    assert client.post("/v1/embeddings", json=texts).status_code == 200
    use_graders(client, tuned)
    assert client.post("/tokenize", json={"model": tuned, "prompt": "hello"}).status_code == 200
    assert client.post("/detokenize", json={"model": tuned, "tokens": [1]}).status_code == 200
    assert client.get("/tokenizer_info", params={"model": tuned}).status_code == 200
    assert client.delete(f"/v1/models/{tuned}").status_code == 200
    assert client.delete(f"/v1/files/{file_id}").status_code == 200
    with api.database.writing() as session:
        worker_seen(session, "worker-test", "cpu", Queue.DEVICE)
        worker_seen(session, "worker-light", "cpu", Queue.LIGHT)
    for path in ("/health", "/healthz", "/readyz"):
        assert client.get(path).status_code == 200


def misuse_every_route(client: httpx.Client) -> None:
    """Let every route refuse; the client checks each answer."""
    for method, path in [
        ("POST", "/v1/files"),
        ("GET", "/v1/files?after=nothing"),
        ("GET", "/v1/files/file-none"),
        ("GET", "/v1/files/file-none/content"),
        ("GET", "/v1/files/file-none/report"),
        ("DELETE", "/v1/files/file-none"),
        ("POST", JOBS),
        ("GET", f"{JOBS}?limit=0"),
        ("GET", f"{JOBS}/ftjob-none"),
        ("POST", f"{JOBS}/ftjob-none/cancel"),
        ("POST", f"{JOBS}/ftjob-none/pause"),
        ("POST", f"{JOBS}/ftjob-none/resume"),
        ("GET", f"{JOBS}/ftjob-none/events"),
        ("GET", f"{JOBS}/ftjob-none/checkpoints"),
        ("GET", f"{JOBS}/ftjob-none/adapter"),
        ("GET", f"{JOBS}/ftjob-none/mask"),
        ("GET", f"{JOBS}/ftjob-none/evaluation"),
        ("POST", COMPARISONS),
        ("GET", f"{COMPARISONS}/ftcompare-none"),
        ("POST", f"{GRADERS}/run"),
        ("POST", f"{GRADERS}/validate"),
        ("POST", SWEEPS),
        ("GET", f"{SWEEPS}?limit=0"),
        ("GET", f"{SWEEPS}/sweep-none"),
        ("POST", f"{SWEEPS}/sweep-none/cancel"),
        ("POST", f"{SWEEPS}/sweep-none/pause"),
        ("POST", f"{SWEEPS}/sweep-none/resume"),
        ("POST", DISTILLATIONS),
        ("GET", f"{DISTILLATIONS}?limit=0"),
        ("GET", f"{DISTILLATIONS}/distill-none"),
        ("GET", f"{DISTILLATIONS}/distill-none/candidates"),
        ("POST", f"{DISTILLATIONS}/distill-none/cancel"),
        ("DELETE", f"{DISTILLATIONS}/distill-none"),
        ("POST", MASKS),
        ("GET", f"{MASKS}/mask-none"),
        ("GET", STRATEGIES),
        ("GET", f"{STRATEGIES}/picture"),
        ("POST", ESTIMATES),
        ("GET", f"{ESTIMATES}/estimate-none"),
        ("POST", "/v1/models/import"),
        ("GET", "/v1/models/import/ftimport-none"),
        ("POST", "/v1/models/soups"),
        ("GET", "/v1/models/soups/ftsoup-none"),
        ("GET", "/v1/models/none/at/all"),
        ("DELETE", "/v1/models/tunesmith/tiny"),
        ("GET", "/v1/models/none/at/all/speed"),
        ("POST", "/v1/models/none/at/all/exports"),
        ("GET", "/v1/models/none/at/all/exports"),
        ("GET", "/v1/exports/export-none"),
        ("GET", "/v1/exports/export-none/content"),
        ("DELETE", "/v1/exports/export-none"),
        ("GET", "/v1/models/none/at/all/download"),
        ("POST", "/v1/models/none/at/all/download"),
        ("POST", "/v1/models/tunesmith/tiny/serving"),
        ("POST", "/v1/models/tunesmith/tiny/publish"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/classifications"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches?limit=0"),
        ("GET", "/v1/batches/batch_none"),
        ("POST", "/v1/batches/batch_none/cancel"),
        ("GET", "/v1/chat/completions?limit=0"),
        ("GET", "/v1/chat/completions/chatcmpl-none"),
        ("POST", "/v1/chat/completions/chatcmpl-none"),
        ("DELETE", "/v1/chat/completions/chatcmpl-none"),
        ("GET", "/v1/chat/completions/chatcmpl-none/messages"),
        ("POST", "/v1/evals"),
        ("GET", "/v1/evals?order=up"),
        ("GET", "/v1/evals/eval_none"),
        ("POST", "/v1/evals/eval_none"),
        ("DELETE", "/v1/evals/eval_none"),
        ("POST", "/v1/evals/eval_none/runs"),
        ("GET", "/v1/evals/eval_none/runs"),
        ("GET", "/v1/evals/eval_none/runs/evalrun_none"),
        ("POST", "/v1/evals/eval_none/runs/evalrun_none"),
        ("POST", "/v1/evals/eval_none/runs/evalrun_none/cancel"),
        ("DELETE", "/v1/evals/eval_none/runs/evalrun_none"),
        ("GET", "/v1/evals/eval_none/runs/evalrun_none/output_items"),
        ("GET", "/v1/evals/eval_none/runs/evalrun_none/output_items/outputitem_none"),
        ("GET", "/v1/evals/eval_none/runs/evalrun_none/report"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/resp_none"),
        ("DELETE", "/v1/responses/resp_none"),
        ("POST", "/v1/responses/resp_none/cancel"),
        ("GET", "/v1/responses/resp_none/input_items"),
        ("POST", "/v1/embeddings"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/tokenizer_info"),
    ]:
        assert 400 <= client.request(method, path).status_code < 500
    assert client.get("/readyz").status_code == 503


def test_every_route_keeps_the_contract(
    api: Api,
    client: CheckedClient,
    upload: Callable[..., str],
    create_job: Callable[..., str],
) -> None:
    misuse_every_route(client)
    use_every_route(api, client, upload, create_job)
    served = {
        (method.upper(), path.removeprefix("/v1"))
        for path, item in api.app.openapi()["paths"].items()
        for method in item
    }
    published = {(m.upper(), p) for p, item in contract()["paths"].items() for m in item}
    assert served == (published - set(NOT_SERVED)) | OUR_ROUTES
    assert {route for route, is_error in client.checked if not is_error} == served
    assert {route for route, is_error in client.checked if is_error} == served - NEVER_REFUSED


def test_our_routes_answer_as_our_own_description_says(api: Api, client: httpx.Client) -> None:
    description = api.app.openapi()
    for path in ("/healthz", "/readyz"):
        answer = client.get(path)
        content = description["paths"][path]["get"]["responses"][str(answer.status_code)]["content"]
        schema = content["application/json"]["schema"] | {"components": description["components"]}
        Draft202012Validator(schema).validate(answer.json())


def test_our_description_promises_the_envelope(api: Api) -> None:
    for path, item in api.app.openapi()["paths"].items():
        for operation in item.values():
            assert "422" not in operation["responses"], path
            assert path in ("/health", "/healthz", "/readyz") or "4XX" in operation["responses"]


def test_contract_refuses_what_is_wrong() -> None:
    """The schemas bite: a test that validates against nothing would pass anything."""
    for name, body in [
        ("FineTuningJob", {"id": "ftjob-1"}),
        ("OpenAIFile", {"id": 1}),
        ("ErrorResponse", {"error": {"message": "no type"}}),
        ("CreateChatCompletionResponse", {"choices": [{}]}),
    ]:
        try:
            check_schema(name, body)
        except AssertionError:
            continue
        raise AssertionError(f"{name} accepts {body}")
