"""Ollama templates rendered by Go's text/template, beside the chat templates they come from."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from core.batching.template import ChatTemplate
from core.exports.gguf.chat_text import chat_text
from core.exports.gguf.conversation_end import first_token
from core.exports.gguf.go_template import go_template
from core.exports.gguf.measure import NotMeasurable, Renderer, measure
from core.exports.gguf.omissions import KINDS as SPECIAL_KINDS
from tests.conversations import KINDS
from tests.core.exports.gguf.chat_templates import NAMES, renderer
from tests.templates import TEMPLATES, template_tokenizer

OF_ISSUE = tuple(KINDS)[:9]
WITHOUT_GO = "Go's template engine needs `go`: install Debian's golang-go"


def prompts(name_or_renderer, kinds):
    """Yield every prompt of an answer that the chat template can write, with its conversation."""
    for kind, (messages, tools) in kinds.items():
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                wanted = name_or_renderer.prompt(messages[:index], tools)
                if wanted:
                    yield kind, messages[:index], tools, wanted


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Return Go's rendering of conversations with a template."""
    if shutil.which("go") is None:
        pytest.skip(WITHOUT_GO)
    program = tmp_path_factory.mktemp("go") / "render"
    source = Path(__file__).parent / "ollama/main.go"
    subprocess.run(["go", "build", "-o", program, source], check=True)

    def render(template, conversations):
        asked = [
            {"template": template, "messages": messages, "tools": tools or None}
            for messages, tools in conversations
        ]
        asked = json.dumps(asked)
        return json.loads(subprocess.check_output([program], input=asked, text=True))

    return render


@pytest.mark.parametrize("name", NAMES)
def test_ollama_renders_the_nine_kinds_as_the_chat_template(name, rendered):
    source = renderer(name)
    kinds = {kind: KINDS[kind] for kind in OF_ISSUE}
    asked = list(prompts(source, kinds))
    texts = rendered(
        go_template(measure(source)), [(messages, tools) for _, messages, tools, _ in asked]
    )
    assert len(asked) >= 8
    for (kind, _, _, wanted), text in zip(asked, texts, strict=True):
        assert text == wanted, kind


@pytest.mark.parametrize("name", NAMES)
def test_go_writes_what_the_parts_say(name, rendered):
    source = renderer(name)
    shape = measure(source)
    asked = [
        (messages, tools, text)
        for messages, tools in SPECIAL_KINDS.values()
        if (text := chat_text(shape, messages, tools)) is not None
    ]
    texts = rendered(go_template(shape), [(messages, tools) for messages, tools, _ in asked])
    for (messages, _, wanted), text in zip(asked, texts, strict=True):
        assert text == wanted, messages


@pytest.mark.slow
def test_templates_of_trl_are_written_exactly_or_not_at_all(rendered):
    """Of the templates of TRL, those that consist of parts are written as they are."""
    exact = 0
    for name in TEMPLATES:
        template = ChatTemplate(template_tokenizer(name))
        source = Renderer(template, first_token(template))
        try:
            shape = measure(source)
        except NotMeasurable:
            continue
        asked = list(prompts(source, {kind: KINDS[kind] for kind in OF_ISSUE}))
        texts = rendered(go_template(shape), [(m, tools) for _, m, tools, _ in asked])
        expected = [chat_text(shape, m, tools) for _, m, tools, _ in asked]
        for text, twin in zip(texts, expected, strict=True):
            assert twin is None or text == twin, name
        exact += all(text == wanted for text, (*_, wanted) in zip(texts, asked, strict=True))
    assert exact >= 30
