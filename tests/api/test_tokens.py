"""vLLM's routes for tokens, on an engine that follows a script."""

from typing import Any

import httpx
import pytest

MODEL = {"model": "tunesmith/tiny"}
MESSAGES = {"messages": [{"role": "user", "content": "be well"}]}


@pytest.mark.parametrize(
    ("body", "tokens", "names"),
    [
        ({"prompt": "be well"}, [3, 2, 4], None),
        ({"prompt": "be well", "add_special_tokens": False}, [2, 4], None),
        ({"prompt": "", "add_special_tokens": False}, [], None),
        ({"prompt": "be well", "return_token_strs": True}, [3, 2, 4], ["<s>", "be", "well"]),
        (MESSAGES, [2, 4, 8], None),
        (
            MESSAGES | {"add_generation_prompt": False, "continue_final_message": False},
            [2, 4],
            None,
        ),
    ],
)
def test_prompt_is_counted_and_tokenized(
    client: httpx.Client, body: dict[str, Any], tokens: list[int], names: list[str] | None
) -> None:
    answer = client.post("/tokenize", json=MODEL | body)
    assert answer.json() == {
        "count": len(tokens),
        "max_model_len": 100,
        "tokens": tokens,
        "token_strs": names,
    }


def test_tokens_become_text_again(client: httpx.Client) -> None:
    answer = client.post("/detokenize", json=MODEL | {"tokens": [1, 3]})
    assert answer.json() == {"prompt": "x xxx"}


def test_tokenizer_is_described(client: httpx.Client) -> None:
    answer = client.get("/tokenizer_info", params=MODEL).json()
    assert (answer["eos_token"], answer["bos_token"]) == ("</s>", None)
    assert (answer["model_max_length"], answer["chat_template"]) == (100, "{{ messages }}")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x"} | MESSAGES, "prompt"),
        ("/tokenize", MESSAGES | {"add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", MESSAGES | {"continue_final_message": True}, "continue_final_message"),
        ("/tokenize", MESSAGES | {"chat_template": "{{ 1 }}"}, "chat_template"),
        ("/tokenize", {"prompt": "x", "model": None}, "model"),
        ("/tokenize", {"prompt": "x", "model": "nobody"}, "model"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
    ],
)
def test_wrong_field_is_named(
    client: httpx.Client, path: str, body: dict[str, Any], param: str
) -> None:
    answer = client.post(path, json=MODEL | body)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"].partition("[")[0].partition(".")[0] == param
