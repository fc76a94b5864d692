import json

import pytest
from transformers import AutoTokenizer

from core.exports.gguf.measure import measure
from core.exports.gguf.modelfile import modelfile
from core.exports.gguf.omissions import KINDS, omissions
from tests.core.exports.gguf.chat_templates import renderer
from tests.core.exports.gguf.models import TINY


@pytest.fixture
def folder(tmp_path):
    """Return a function: a folder with the tiny tokenizer and another template."""

    def save(template, **generation):
        tokenizer = AutoTokenizer.from_pretrained(TINY)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(tmp_path)
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        return tmp_path

    return save


def lines_of(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_files_parameters_and_stops(folder):
    given = {"temperature": 0.6, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1}
    template = AutoTokenizer.from_pretrained(TINY).chat_template
    text = modelfile(folder(template, **given, do_sample=True), "model.gguf").text
    assert lines_of(text, "FROM") == ["FROM ./model.gguf"]
    assert lines_of(text, "ADAPTER") == []
    assert lines_of(text, "PARAMETER") == [
        "PARAMETER temperature 0.6",
        "PARAMETER top_p 0.9",
        "PARAMETER top_k 40",
        "PARAMETER repeat_penalty 1.1",
        'PARAMETER stop "<|im_end|>"',
    ]
    assert text.count('"""') == 2


def test_an_adapter_has_its_base_and_the_versions_that_take_it():
    made = modelfile(TINY, "base.gguf", "adapter.gguf")
    assert lines_of(made.text, "FROM") == ["FROM ./base.gguf"]
    assert lines_of(made.text, "ADAPTER") == ["ADAPTER ./adapter.gguf"]
    assert "refuse ADAPTER" in made.omissions[0]


def test_what_it_cannot_say_is_in_its_comments():
    made = modelfile(TINY, "model.gguf")
    assert "It writes lists and objects in arguments differently from the chat template." in (
        made.omissions
    )
    assert lines_of(made.text, "#")[1:] == [f"# {sentence}" for sentence in made.omissions]


def test_a_model_without_a_template_continues_a_text(folder):
    made = modelfile(folder(None), "model.gguf")
    assert 'TEMPLATE """{{ .Prompt }}"""' in made.text
    assert made.omissions == (
        "The model has no chat template; it continues the text that it is given.",
    )


def test_a_template_that_is_no_row_of_parts_is_left_to_llama_server(folder):
    reverse = "{% for m in messages[::-1] %}{{ m.content }}{% endfor %}"
    made = modelfile(folder(reverse), "model.gguf")
    assert "TEMPLATE" not in made.text
    assert "--jinja" in made.omissions[0]


def test_text_that_would_end_or_be_dropped_is_written_by_actions(folder):
    """Ollama ends a template at three quotation marks, and drops what cannot be printed."""
    template = (
        '{% for m in messages %}<\u200b"""\u00a0|{{ m.role }}\u3000>{{ m.content }}\u2060'
        '{% endfor %}{% if add_generation_prompt %}<"""|assistant>{% endif %}'
    )
    made = modelfile(folder(template), "model.gguf").text
    assert made.count('"""') == 2, "the start and the end of the template"
    assert all(each.isprintable() or each == "\n" for each in made)
    assert "\\u3000" in made and "\\u2060" in made


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("qwen3", "It writes reasoning before a call differently from the chat template."),
        ("llama3", "It writes white space around a message differently from the chat template."),
        (
            "llama3_2",
            "It writes the date of the export; the chat template writes the current date.",
        ),
        ("mistral with tools", "It does not write a text before a call."),
    ],
)
def test_omissions_are_found_by_comparing(name, sentence):
    source = renderer(name)
    if name == "mistral with tools":  # its template drops such a text, so that none is trained
        messages, tools = KINDS["a text before a call"]
        assert source.prompt(messages, tools) == ""
    else:
        assert sentence in omissions(source, measure(source))


def test_common_conversations_are_no_omissions():
    said = " ".join(omissions(renderer("qwen2_5"), measure(renderer("qwen2_5"))))
    for kind in ("several turns", "tools and a system text", "a call and its result"):
        assert f"writes {kind} differently" not in said
        assert f"not write {kind}" not in said
