"""Conversations of every kind, as `core/datasets/chat.py` reads them; each text is unique."""

from typing import Any

Message = dict[str, Any]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def answer(text: str, **fields: Any) -> Message:
    return {"role": "assistant", "content": text, **fields}


def call(id_: str, **arguments: Any) -> Message:
    function = {"name": "get_weather", "arguments": arguments}
    return {"id": id_, "type": "function", "function": function}


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "City"},
                "days": {"type": "integer", "description": "Days"},
            },
            "required": ["city"],
        },
    },
}
SYSTEM = {"role": "system", "content": "Be brief, please."}
CALLS = [call("call_abc123XYZ", city="Trondheim", days=2)]
RESULT = {"role": "tool", "content": "7 degrees", "tool_call_id": "call_abc123XYZ"}

_NORWAY, _SWEDEN, _FINLAND = map(user, ("Capital of Norway?", "And of Sweden?", "Finland?"))
_OSLO, _STOCKHOLM, _HELSINKI = map(answer, ("Oslo.", "Stockholm.", "Helsinki."))
_ASKED, _CALLED = user("Weather there?"), answer("", tool_calls=CALLS)
_TOLD = answer("It is seven degrees.")

KINDS: dict[str, tuple[list[Message], list[Message]]] = {
    "one answer": ([_NORWAY, _OSLO], []),
    "two answers": ([_NORWAY, _OSLO, _SWEDEN, _STOCKHOLM], []),
    "three answers": ([_NORWAY, _OSLO, _SWEDEN, _STOCKHOLM, _FINLAND, _HELSINKI], []),
    "system text": ([SYSTEM, _NORWAY, _OSLO, _SWEDEN, _STOCKHOLM], []),
    "weight 0": ([_NORWAY, {**_OSLO, "weight": 0}, _SWEDEN, _STOCKHOLM], []),
    "call": ([_ASKED, _CALLED], [TOOL]),
    "tool loop": ([_ASKED, _CALLED, RESULT, _TOLD], [TOOL]),
    "call with words": ([_ASKED, answer("Let me look.", tool_calls=CALLS)], [TOOL]),
    "loop and turn": (
        [_ASKED, _CALLED, RESULT, _TOLD, user("Thanks!"), answer("You are welcome.")],
        [TOOL],
    ),
    "reasoning": ([_NORWAY, answer("Oslo.", reasoning_content="A country up north.")], []),
    "reasoning twice": (
        [
            _NORWAY,
            answer("Oslo.", reasoning_content="A country up north."),
            _SWEDEN,
            answer("Stockholm.", reasoning_content="Its neighbour."),
        ],
        [],
    ),
    "reasoning and call": (
        [
            _ASKED,
            answer("", tool_calls=CALLS, reasoning_content="I need the tool."),
            RESULT,
            answer("It is seven degrees.", reasoning_content="Now I know."),
        ],
        [TOOL],
    ),
}
