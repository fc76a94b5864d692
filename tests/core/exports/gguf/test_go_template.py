"""Ollama templates rendered by Go's text/template, beside the chat templates they come from."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from core.batching.template import ChatTemplate, TemplateContext
from core.exports.gguf.chat_text import chat_text
from core.exports.gguf.conversation_end import first_token
from core.exports.gguf.go_template import go_template
from core.exports.gguf.measure import Renderer, measure
from core.exports.gguf.omissions import KINDS as SPECIAL_KINDS
from core.exports.gguf.omissions import omissions
from tests.conversations import KINDS
from tests.core.exports.gguf.chat_templates import NAMES, TIME, renderer
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
@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_of_trl_are_written_exactly_or_the_omissions_name_what_is_not(name, rendered):
    template = ChatTemplate(template_tokenizer(name), TemplateContext(time=TIME))
    source = Renderer(template, first_token(template))
    shape = measure(source)
    asked = list(prompts(source, {kind: KINDS[kind] for kind in OF_ISSUE}))
    texts = rendered(go_template(shape), [(messages, tools) for _, messages, tools, _ in asked])
    said = " ".join(omissions(source, shape))
    for (kind, messages, tools, wanted), text in zip(asked, texts, strict=True):
        if text != wanted:
            assert tools and ("tools" in said or "call" in said), (kind, text)
            assert chat_text(shape, messages, tools) in (None, text), kind
