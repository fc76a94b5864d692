"""The same request to our engine and through the bridge gives the same answer."""

import json

import pytest

from tests.worker.serving import HELLO, events

MODELS = ["base", "first adapter", "second adapter"]
CHAT = {"type": "chat", "messages": [{"role": "user", "content": "What is a tuple? Größe 東京 🙂"}]}
TEXT = {"type": "text", "text": "The list has"}
TOKENS = {"type": "tokens", "tokens": [11, 40, 300, 52, 7]}
NEAR_NATS = 1e-3


@pytest.fixture(params=[*MODELS[:2], pytest.param(MODELS[2], marks=pytest.mark.slow)])
def model(request, adapters) -> dict | None:
    return {"base": None, "first adapter": adapters[0], "second adapter": adapters[1]}[
        request.param
    ]


def shaped(found: list[dict]) -> tuple[dict, dict[int, dict]]:
    """Start and choices: text, log-probabilities, calls and end of each, however it was cut."""
    choices: dict[int, dict] = {}
    for event in found[1:]:
        assert event["type"] in ("delta", "tool_call", "choice_finished"), event
        choice = choices.setdefault(event["choice"], {"text": "", "logprobs": [], "calls": []})
        assert "end" not in choice, "an event came after the end of its choice"
        match event["type"]:
            case "delta":
                choice["text"] += event["text"]
                choice["logprobs"] += event["logprobs"]
            case "tool_call":
                choice["calls"].append((event["name"], event["arguments"]))
            case _:
                choice["end"] = event["finish_reason"], event["completion_tokens"]
    assert found[0]["type"] == "started"
    return found[0] | {"hardware": ""}, choices


def assert_alike(found, expected) -> None:
    """Equal, up to rounding in numbers."""
    match expected:
        case float():
            assert found == pytest.approx(expected, abs=NEAR_NATS)
        case dict():
            assert found.keys() == expected.keys()
            for key in expected:
                assert_alike(found[key], expected[key])
        case list() | tuple():
            assert len(found) == len(expected), (found, expected)
            for left, right in zip(found, expected, strict=True):
                assert_alike(left, right)
        case _:
            assert found == expected


def compared(engine, either, **request) -> dict[int, dict]:
    """Ask both; return the choices, which are the same."""
    expected = shaped(events(engine.generate(**request)))
    found = shaped(events(either.generate(**request)))
    assert_alike(found, expected)
    return found[1]


@pytest.mark.parametrize("prompt", [CHAT, TEXT, TOKENS], ids=lambda prompt: prompt["type"])
def test_greedy_answers_are_equal_token_by_token(engine, either, model, prompt):
    choices = compared(engine, either, adapter=model, prompt=prompt, max_tokens=24, top_logprobs=3)
    assert len(choices[0]["logprobs"]) > 1
    assert all(len(token["top"]) == 3 for token in choices[0]["logprobs"])


def test_models_answer_differently(engine, either, adapters):
    answers = {
        compared(engine, either, adapter=adapter, prompt=CHAT, max_tokens=24)[0]["text"]
        for adapter in (None, *adapters)
    }
    assert len(answers) == 3


def test_only_the_chosen_tokens_are_scored_when_no_others_are_asked_for(engine, either):
    choices = compared(engine, either, prompt=TEXT, top_logprobs=0)
    assert all(token["top"] == [] for token in choices[0]["logprobs"])


def test_a_stop_string_ends_the_answer_wherever_tokens_end(engine, either, model):
    text = compared(engine, either, adapter=model, prompt=CHAT, max_tokens=24)[0]["text"]
    stop = [text[5:8], "never to be found"]
    choices = compared(
        engine, either, adapter=model, prompt=CHAT, max_tokens=24, stop=stop, top_logprobs=1
    )
    assert choices[0]["text"] == text[: text.index(stop[0])]
    assert choices[0]["end"][0] == "stop"


def test_greedy_choices_are_all_the_same(engine, either, model):
    choices = compared(engine, either, adapter=model, prompt=CHAT, n=3, top_logprobs=1)
    assert choices[0] == choices[1] == choices[2]


def test_a_nucleus_of_nothing_is_greedy(engine, either):
    greedy = compared(engine, either, prompt=CHAT)
    assert compared(engine, either, prompt=CHAT, temperature=1, top_p=0, n=1) == greedy


def test_bias_and_penalties_move_the_choice(engine, either, model):
    plain = compared(engine, either, adapter=model, prompt=TEXT, max_tokens=40)[0]["text"]
    options = {"frequency_penalty": 2, "presence_penalty": 2, "max_tokens": 40}
    moved = compared(engine, either, adapter=model, prompt=TEXT, top_logprobs=1, **options)
    assert moved[0]["text"] != plain
    biased = compared(engine, either, adapter=model, prompt=TEXT, logit_bias={"300": 100})
    assert len(set(biased[0]["text"].split())) == 1


def test_repeated_tokens_of_prompt_and_answer_are_penalized(engine, either, model):
    plain = compared(engine, either, adapter=model, prompt=CHAT, max_tokens=24)
    options = {"repetition_penalty": 1.8, "top_logprobs": 1, "max_tokens": 24}
    assert compared(engine, either, adapter=model, prompt=CHAT, **options)[0]["text"] != plain


def test_an_answer_stops_at_a_token_but_not_too_early(engine, either, model):
    """Nearly every token is a stop token."""
    asked = {"adapter": model, "prompt": TOKENS, "top_logprobs": 1, "max_tokens": 24}
    stop = list(range(5, 4000))
    choice = compared(engine, either, **asked, stop_token_ids=stop)[0]
    assert (choice["text"], choice["end"][0]) == ("", "stop")
    choice = compared(engine, either, **asked, stop_token_ids=stop, include_stop=True)[0]
    assert choice["text"]
    later = compared(engine, either, **asked, stop_token_ids=stop, min_tokens=20)[0]
    assert later["end"][1] >= 20


def test_the_most_likely_token_alone_may_be_drawn(engine, either, model):
    greedy = compared(engine, either, adapter=model, prompt=CHAT, top_logprobs=1)
    for options in ({"top_k": 1}, {"min_p": 1.0}):
        drawn = {"temperature": 1.0, "top_logprobs": 1, **options}
        assert compared(engine, either, adapter=model, prompt=CHAT, **drawn) == greedy


def test_a_prompt_is_scored(engine, either, model):
    asked = {"adapter": model, "prompt": TEXT, "score_prompt": True, "top_logprobs": 2}
    for max_tokens in (0, 4):
        found, choices = shaped(events(either.generate(**asked, max_tokens=max_tokens)))
        assert_alike(
            (found, choices), shaped(events(engine.generate(**asked, max_tokens=max_tokens)))
        )
        assert found["prompt"][0]["logprob"] is None
        assert all(token["logprob"] < 0 for token in found["prompt"][1:])
        assert choices[0]["end"] == ("length", max_tokens)


def test_a_prompt_is_only_read(engine, either):
    assert compared(engine, either, prompt=TEXT, max_tokens=0)[0]["end"] == ("length", 0)


@pytest.mark.parametrize("score_prompt", [False, True])
def test_a_given_answer_is_scored(engine, either, model, score_prompt):
    options = {"given_answer": [300, 2, 41, 42], "top_logprobs": 1, "score_prompt": score_prompt}
    asked = {"adapter": model, "prompt": CHAT, **options}
    found = shaped(events(either.generate(**asked)))
    assert_alike(found, shaped(events(engine.generate(**asked))))
    assert len(found[1][0]["logprobs"]) == 4
    assert found[0]["prompt_ids"]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["東京", "Berlin"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("weather", "time")
]


def test_a_forced_tool_call_is_a_call(either, model):
    form = {"type": "tool_call", "name": "weather"}
    asked = {"adapter": model, "prompt": HELLO | {"tools": TOOLS}, "structured_output": form}
    choice = shaped(events(either.generate(**asked, max_tokens=100)))[1][0]
    [(name, arguments)] = choice["calls"]
    assert name == "weather"
    assert json.loads(arguments)["city"] in ("東京", "Berlin")
    assert (choice["text"], choice["end"][0]) == ("", "tool_calls")


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["a::=b", "c"]}, "count": {"type": "integer", "maximum": 99}},
    "required": ["name", "count"],
    "additionalProperties": False,
}


def test_an_answer_is_held_to_a_schema(either, model):
    form = {"type": "json_schema", "json_schema": SCHEMA}
    asked = {"adapter": model, "prompt": CHAT, "structured_output": form, "max_tokens": 120}
    choice = shaped(events(either.generate(**asked)))[1][0]
    assert json.loads(choice["text"]).keys() == {"name", "count"}
    assert choice["end"][0] == "stop"


def test_an_answer_is_held_to_be_an_object(either):
    asked = {"prompt": CHAT, "structured_output": {"type": "json_object"}, "max_tokens": 30}
    assert shaped(events(either.generate(**asked)))[1][0]["text"].startswith("{")


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": SCHEMA},
        {"type": "tool_call"},
        {"type": "regex", "regex": "[ab]{3}/::=(x|y)+z"},
        {"type": "choice", "choices": ["one", "two and a half", "größer"]},
        {"type": "grammar", "grammar": 'start: "a" B "c"\nB: /[0-9]{2}/'},
        {"type": "grammar", "grammar": 'root ::= "yes" | "no" [0-9]'},
    ],
    ids=lambda form: form["type"],
)
def test_with_the_very_same_grammar_the_answer_is_equal(engine, service, model, form):
    compared(
        engine,
        service,
        adapter=model,
        prompt=HELLO | {"tools": TOOLS},
        structured_output=form,
        max_tokens=60,
    )


def test_sampled_choices_differ_and_repeat_with_their_seed(either, adapters):
    asked = {"adapter": adapters[0], "prompt": CHAT, "temperature": 1.5, "n": 3, "top_logprobs": 2}
    _, choices = shaped(events(either.generate(**asked, max_tokens=12)))
    assert len({choice["text"] for choice in choices.values()}) == 3
    _, again = shaped(events(either.generate(**asked, max_tokens=12)))
    assert_alike(again, choices)
