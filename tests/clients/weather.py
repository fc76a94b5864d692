"""A model that calls a tool: rows that teach tiny six cities, so that programs work unmodified.

Tiny alone calls no tool and ends no text. After a minute of training on these rows it asks for a
tool, reads what the tool says, hands over to another agent, and fills in a form.
"""

import json
from collections.abc import Iterator
from typing import Any

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.end_to_end.service import wait_until

WEATHER = {
    "Bern": "sunny",
    "Oslo": "snowy",
    "Lima": "foggy",
    "Cairo": "hot",
    "Rome": "rainy",
    "Kyoto": "windy",
}

SYSTEMS = (
    None,
    "You are a helpful assistant.",
    "Answer with the tools that you have.",
    "You answer questions about the weather. Use the tools.",
    "Hand the question to the agent that knows the answer.",
)

DSPY_QUESTION = (
    "[[ ## question ## ]]\n{}\n\nRespond with the corresponding output fields, starting with the "
    "field `[[ ## answer ## ]]`, and then ending with the marker for `[[ ## completed ## ]]`."
)
DSPY_ANSWER = "[[ ## answer ## ]]\n{}\n\n[[ ## completed ## ]]"

RECALLED = 4
"""How often the plain question is among the conversations of a city. Programs sample at temperature
1, and nothing in the prompt tells the weather; asked once, tiny is wrong in one of ten answers."""

TRAINING: dict[str, Any] = {
    "strategy": {"type": "full"},
    "training": {"learning_rate": 2e-3, "max_steps": 240, "batch_size": 8, "precision": "fp32"},
}

Message = dict[str, Any]


def tool(name: str, *properties: str, description: str = "", strict: bool = False) -> Message:
    """A function whose arguments are texts, as clients describe it."""
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": {each: {"type": "string"} for each in properties},
        "required": list(properties),
    }
    function: dict[str, Any] = {"name": name, "parameters": parameters}
    if description:
        function["description"] = description
    if strict:
        parameters["additionalProperties"] = False
        function["strict"] = True
    return {"type": "function", "function": function}


def tools(name: str, *properties: str) -> list[list[Message]]:
    """One tool, in the spellings of several programs."""
    from_zod = tool(name, *properties, description="What it does.")
    from_zod["function"]["parameters"] |= {
        "additionalProperties": False,
        "$schema": "http://json-schema.org/draft-07/schema#",
    }
    return [
        [tool(name, *properties)],
        [tool(name, *properties, description="What it does.", strict=True)],
        [from_zod],
    ]


def call(name: str, **arguments: Any) -> Message:
    function = {"name": name, "arguments": json.dumps(arguments)}
    made = {"id": f"call_{name}", "type": "function", "function": function}
    return {"role": "assistant", "tool_calls": [made]}


def result(name: str, content: str) -> Message:
    return {"role": "tool", "tool_call_id": f"call_{name}", "content": content}


def rows() -> Iterator[dict[str, Any]]:
    """Every conversation of every city; the system message changes from one to the next."""
    number = 0
    for city, weather in WEATHER.items():
        question = {"role": "user", "content": f"What is the weather in {city}?"}
        answer = {"role": "assistant", "content": f"It is {weather} in {city}."}
        asked = [call("get_weather", city=city), result("get_weather", weather), answer]
        handed = [
            call("transfer_to_weather_agent"),
            result("transfer_to_weather_agent", '{"assistant": "Weather agent"}'),
        ]
        told = {"role": "user", "content": f"It is {weather} in {city}."}
        form = {"city": city, "weather": weather}
        conversations: list[tuple[list[Message], list[Message]]] = [([question, answer], [])]
        conversations += [([question, *asked], offer) for offer in tools("get_weather", "city")]
        conversations += [
            ([question, *handed, *asked], [*first, *second])
            for first, second in zip(
                tools("transfer_to_weather_agent"), tools("get_weather", "city"), strict=True
            )
        ]
        conversations += [
            ([question, handed[0]], offer) for offer in tools("transfer_to_weather_agent")
        ]
        conversations += [
            ([told, call("Report", **form)], offer) for offer in tools("Report", *form)
        ]
        conversations.append(
            ([told, call("IterableReport", tasks=[form])], [tool("IterableReport", "tasks")])
        )
        conversations.append(([told, {"role": "assistant", "content": json.dumps(form)}], []))
        fields = {"role": "user", "content": DSPY_QUESTION.format(question["content"])}
        marked = {"role": "assistant", "content": DSPY_ANSWER.format(answer["content"])}
        conversations.append(([fields, marked], []))
        conversations += [([question, answer], [])] * (RECALLED - 1)
        for messages, offer in conversations:
            for system in (None, SYSTEMS[1 + number % (len(SYSTEMS) - 1)]):
                number += 1
                head = [] if system is None else [{"role": "system", "content": system}]
                row: dict[str, Any] = {"messages": [*head, *messages]}
                yield row | ({"tools": offer} if offer else {})


def jsonl() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows()).encode()


def tune(client: OpenAI, base: str, suffix: str = "weather") -> FineTuningJob:
    """Return the job that has made the model."""
    file = client.files.create(file=("weather.jsonl", jsonl()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=base, training_file=file.id, suffix=suffix, seed=5, extra_body=TRAINING
    )
    return wait_until(client, job.id, "succeeded")
