"""Ask a vLLM server what the bridge asks, and more; keep the form of each answer.

`python -m tests.worker.vllm.record PYTHON` starts a vLLM of that Python and writes recorded.json.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.worker.serving import BASE
from tests.worker.vllm.fake import KEY
from tests.worker.vllm.real import real_vllm

FILE = Path(__file__).with_name("recorded.json")
SECONDS = 60
COMPLETION: dict[str, Any] = {
    **{"model": "base", "prompt": [5, 6, 7, 8], "max_tokens": 3, "n": 1, "temperature": 0.0},
    **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 1},
    **{"frequency_penalty": 0.0, "presence_penalty": 0.0, "ignore_eos": True},
    **{"stop_token_ids": [2], "stream": True},
    **{"return_token_ids": True, "return_tokens_as_token_ids": True},
}


def write_adapter(folder: Path, rank: int = 4) -> Path:
    """Write an adapter as PEFT does."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(BASE.source, dtype=torch.float32)
    get_peft_model(model, LoraConfig(r=rank, target_modules=["q_proj"])).save_pretrained(folder)
    return folder


def ask(client: httpx.Client, adapter: Path, large: Path) -> list[dict[str, Any]]:
    """Send a fixed row of requests; return the form of each answer."""
    load, unload, complete = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions"
    requests: list[tuple[str, str, dict[str, Any] | None]] = [
        ("version", "/version", None),
        ("health", "/health", None),
        ("models", "/v1/models", None),
        ("load", load, {"lora_name": "a", "lora_path": str(adapter)}),
        ("load again", load, {"lora_name": "a", "lora_path": str(adapter)}),
        ("load what is not there", load, {"lora_name": "b", "lora_path": "/nonexistent/b"}),
        ("load a rank too large", load, {"lora_name": "c", "lora_path": str(large)}),
        ("load without a path", load, {"lora_name": "d"}),
        ("models with an adapter", "/v1/models", None),
        ("complete", complete, COMPLETION),
        ("complete with an adapter", complete, COMPLETION | {"model": "a"}),
        ("scores", complete, COMPLETION | {"logprobs": 2}),
        ("scores of the chosen alone", complete, COMPLETION | {"logprobs": 0}),
        ("scores of the prompt", complete, COMPLETION | {"logprobs": 2, "echo": True}),
        ("choices", complete, COMPLETION | {"n": 2, "temperature": 1.0}),
        ("greedy choices", complete, COMPLETION | {"n": 2}),
        ("too many scores", complete, COMPLETION | {"logprobs": 21}),
        ("nucleus of nothing", complete, COMPLETION | {"temperature": 1.0, "top_p": 0.0}),
        ("no tokens", complete, COMPLETION | {"max_tokens": 0}),
        ("unknown token biased", complete, COMPLETION | {"logit_bias": {"5000": 1.0}}),
        ("unknown model", complete, COMPLETION | {"model": "nobody"}),
        ("prompt too long", complete, COMPLETION | {"prompt": [5] * 1024}),
        ("unload", unload, {"lora_name": "a"}),
        ("unload again", unload, {"lora_name": "a"}),
        ("complete after unloading", complete, COMPLETION | {"model": "a"}),
    ]
    told = []
    for name, path, body in requests:
        method = "GET" if body is None else "POST"
        headers = {"authorization": f"Bearer {KEY}"}
        answer = client.request(method, path, json=body, headers=headers, timeout=SECONDS)
        told.append({"name": name, "status": answer.status_code, "body": shape_of(answer)})
    answer = client.get("/v1/models")
    told.append({"name": "no key", "status": answer.status_code, "body": shape_of(answer)})
    return told


def shape_of(answer: httpx.Response) -> Any:
    """Return the form of a body: of a stream that of its events, of a text its first word."""
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind == "text/event-stream":
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        told = [event if event == "[DONE]" else shape(json.loads(event)) for event in events]
        return sorted(told, key=_choice)  # which choice comes first is a matter of luck
    if kind == "application/json":
        return shape(answer.json())
    return answer.text.partition(" ")[0]


def shape(value: Any, name: str = "") -> Any:
    """Return a value with names and types only, and what the bridge goes by as it is."""
    match value:
        case dict() if name == "top_logprobs":
            return f"{len(value)} tokens" if all(map(_is_token, value)) else sorted(value)
        case dict():
            return {key: shape(value[key], key) for key in sorted(value) if key in _READ}
        case list():
            return [shape(each, name) for each in value]
        case str() if name in ("finish_reason", "type", "parent"):
            return value
        case str() if name == "tokens":
            return "token" if _is_token(value) else value
        case int() if name in ("code", "index", "max_model_len"):
            return value
        case int() | float() | str() | None:
            return type(value).__name__
    raise TypeError(value)


_READ = {
    *("version", "data", "id", "parent", "max_model_len", "error", "message", "type", "code"),
    *("choices", "index", "finish_reason", "token_ids", "logprobs"),
    *("tokens", "token_logprobs", "top_logprobs"),
}
"""What the bridge reads, or might; vLLM tells more."""


def _choice(event: Any) -> int:
    """Return the number of the choice; nothing comes after the end of the stream."""
    if event == "[DONE]":
        return sys.maxsize
    return event["choices"][0]["index"] if "choices" in event else 0


def _is_token(name: str) -> bool:
    return name.startswith("token_id:") and name[9:].isdigit()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        adapter = write_adapter(Path(folder) / "a")
        large = write_adapter(Path(folder) / "large", rank=32)
        with real_vllm(sys.argv[1]) as url, httpx.Client(base_url=url, trust_env=False) as client:
            told = ask(client, adapter, large)
    FILE.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
