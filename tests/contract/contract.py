"""Holds answers against OpenAI's published API description, and our own routes against ours."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

_FOLDER = Path(__file__).parent
_CONTRACT = "urn:openai-contract"

Route = tuple[str, str]
"""Method and path template, such as ("GET", "/files/{file_id}")."""

OUR_ROUTES: frozenset[Route] = frozenset(
    {
        ("POST", "/classifications"),
        ("GET", "/files/{file_id}/report"),
        ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}/adapter"),
        ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}/evaluation"),
        ("GET", "/fine_tuning/jobs/{fine_tuning_job_id}/mask"),
        ("POST", "/fine_tuning/comparisons"),
        ("GET", "/fine_tuning/comparisons/{comparison_id}"),
        ("POST", "/models/{model}/exports"),
        ("GET", "/models/{model}/exports"),
        ("GET", "/exports/{export_id}"),
        ("GET", "/exports/{export_id}/content"),
        ("DELETE", "/exports/{export_id}"),
        ("POST", "/fine_tuning/sweeps"),
        ("GET", "/fine_tuning/sweeps"),
        ("GET", "/fine_tuning/sweeps/{sweep_id}"),
        ("POST", "/fine_tuning/sweeps/{sweep_id}/cancel"),
        ("POST", "/fine_tuning/sweeps/{sweep_id}/pause"),
        ("POST", "/fine_tuning/sweeps/{sweep_id}/resume"),
        ("POST", "/fine_tuning/distillations"),
        ("GET", "/fine_tuning/distillations"),
        ("GET", "/fine_tuning/distillations/{distillation_id}"),
        ("GET", "/fine_tuning/distillations/{distillation_id}/candidates"),
        ("POST", "/fine_tuning/distillations/{distillation_id}/cancel"),
        ("DELETE", "/fine_tuning/distillations/{distillation_id}"),
        ("POST", "/fine_tuning/masks"),
        ("GET", "/fine_tuning/masks/{mask_id}"),
        ("GET", "/fine_tuning/strategies"),
        ("GET", "/fine_tuning/strategies/picture"),
        ("POST", "/fine_tuning/estimates"),
        ("GET", "/fine_tuning/estimates/{estimate_id}"),
        ("POST", "/models/import"),
        ("GET", "/models/import/{import_id}"),
        ("POST", "/models/soups"),
        ("GET", "/models/soups/{soup_id}"),
        ("GET", "/models/{model}/speed"),
        ("GET", "/models/{model}/download"),
        ("POST", "/models/{model}/download"),
        ("POST", "/models/{model}/serving"),
        ("POST", "/models/{model}/publish"),
        ("GET", "/evals/{eval_id}/runs/{run_id}/report"),
        # of OpenAI, too, whose clients use them, but the description here lacks them
        ("POST", "/evals/{eval_id}/runs/{run_id}/cancel"),
        ("GET", "/chat/completions/{completion_id}"),
        ("POST", "/chat/completions/{completion_id}"),
        ("DELETE", "/chat/completions/{completion_id}"),
        ("GET", "/chat/completions/{completion_id}/messages"),
        ("GET", "/health"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/tokenizer_info"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
    }
)
"""Routes that OpenAI does not have."""


@cache
def contract() -> dict[str, Any]:
    """The description, with the idioms of OpenAPI 3.0 rewritten and the overlay applied."""
    text = (_FOLDER / "openai-contract.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = _normalized(yaml.load(text, yaml.CSafeLoader))
    for deviation in yaml.safe_load((_FOLDER / "overlay.yaml").read_text(encoding="utf-8")):
        assert deviation["reason"]
        _apply(document, deviation["at"], deviation["set"])
    return document


def _normalized(node: Any) -> Any:
    """Rewrite `nullable` and boolean `exclusiveMinimum`, which OpenAPI 3.1 no longer knows."""
    if isinstance(node, list):
        return [_normalized(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _normalized(value) for key, value in node.items()}
    if node.get("exclusiveMinimum") is True:
        node["exclusiveMinimum"] = node.pop("minimum")
    if node.pop("nullable", None) is True:
        node = {"anyOf": [node, {"type": "null"}]}
    return node


def _apply(document: dict[str, Any], pointer: str, change: dict[str, Any]) -> None:
    target: Any = document
    for part in pointer.removeprefix("/").split("/"):
        target = target[int(part) if isinstance(target, list) else part.replace("~1", "/")]
    for key, value in change.items():
        if value is None:
            del target[key]
        else:
            target[key] = value


def route_of(method: str, path: str) -> Route | None:
    """The route of the contract, or of ours, that a request went to."""
    ours = [(m, p) for m, p in OUR_ROUTES if m == method]
    theirs = [(m.upper(), p) for p, item in contract()["paths"].items() for m in item]
    for route in (*ours, *theirs):
        if route[0] != method:
            continue
        # the id of a model may hold slashes
        pattern = re.sub(r"\{\w+\}", "[^/]+", route[1].replace("{model}", ".+"))
        if re.fullmatch(pattern, path.removeprefix("/v1")):
            return route
    return None


def check(answer: httpx.Response) -> Route | None:
    """Assert that an answer is one of its route, and return the route."""
    request = answer.request
    route = route_of(request.method, request.url.path)
    assert answer.headers["x-request-id"].startswith("req-")
    assert answer.headers["openai-processing-ms"].isdigit()
    if answer.status_code >= 400 and route != ("GET", "/readyz"):
        check_schema("ErrorResponse", answer.json())
        is_permanent = answer.status_code < 500 and answer.status_code != 429
        assert (answer.headers.get("x-should-retry") == "false") == is_permanent
        assert answer.status_code not in (429, 503) or int(answer.headers["retry-after"]) > 0
    elif route is not None and route not in OUR_ROUTES:
        method, path = route
        answers = contract()["paths"][path][method.lower()]["responses"]
        status = next(status for status in answers if status.startswith("2"))
        assert answer.status_code == int(status)
        content = answers[status].get("content")
        media_type = answer.headers["content-type"].partition(";")[0]
        if content and media_type == "application/json":
            success = ("paths", path, method.lower(), "responses", status, "content", media_type)
            _check((*success, "schema"), answer.json())
        else:
            assert content is None or media_type in content or media_type == "text/event-stream"
    return route


def check_schema(name: str, body: Any) -> None:
    _check(("components", "schemas", name), body)


def _check(place: tuple[str, ...], body: Any) -> None:
    """Hold `body` against the schema at this place of the contract."""
    faults = [
        f"{error.json_path}: {error.message}" for error in _validator(place).iter_errors(body)
    ]
    assert not faults, "\n".join(faults)


@cache
def _validator(place: tuple[str, ...]) -> Draft202012Validator:
    pointer = "/".join(key.replace("~", "~0").replace("/", "~1") for key in place)
    return Draft202012Validator({"$ref": f"{_CONTRACT}#/{pointer}"}, registry=_registry())


@cache
def _registry() -> Registry[Any]:
    return Registry().with_resource(_CONTRACT, DRAFT202012.create_resource(contract()))


class CheckedClient(httpx.Client):
    """An HTTP client that checks every answer, streams aside, and notes what it has checked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trust_env=False, **options)
        self.checked: set[tuple[Route | None, bool]] = set()
        """(route, whether the answer was an error)"""

    def request(self, *args: Any, **options: Any) -> httpx.Response:
        answer = super().request(*args, **options)
        self.checked.add((check(answer), answer.status_code >= 400))
        return answer
