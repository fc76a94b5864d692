"""Run by a Python that has vLLM, and none of this project: log-probabilities of rows of tokens.

python vllm_figures.py < {"model": …, "adapter": …, "rank": …, "rows": […]} > [[…], …]
"""

import contextlib
import json
import os
import sys
from typing import Any

SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


def main() -> None:
    os.environ.update(SETTINGS)
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        found = figures(asked)
    print(json.dumps(found))


def figures(asked: dict[str, Any]) -> list[list[float]]:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

    options: dict[str, Any] = {"max_model_len": 128, "max_num_seqs": 4}
    adapter = None
    if asked.get("adapter"):
        options |= {"enable_lora": True, "max_lora_rank": asked["rank"], "max_loras": 1}
        adapter = LoRARequest("tuned", 1, asked["adapter"])
    llm = LLM(model=asked["model"], dtype="float32", enforce_eager=True, **options)
    sampling = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    found = []
    for row in asked["rows"]:  # with an adapter, vLLM 0.32 cannot score two prompts at once
        (answer,) = llm.generate([{"prompt_token_ids": row}], sampling, lora_request=adapter)
        pairs = zip(answer.prompt_logprobs, row, strict=True)
        found.append([said[token].logprob for said, token in pairs if said])
    return found


if __name__ == "__main__":
    main()
