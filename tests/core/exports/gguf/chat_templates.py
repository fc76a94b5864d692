"""The chat templates of the families that GGUF knows: those of TRL, ours, and two of Mistral's."""

import copy
from functools import cache
from typing import Any

from tokenizers import AddedToken
from transformers import AutoTokenizer

from core.batching.template import ChatTemplate, TemplateContext
from core.exports.gguf.conversation_end import first_token
from core.exports.gguf.measure import Renderer
from tests.core.exports.gguf.models import TINY
from tests.templates import template_tokenizer

TIME = 1_700_000_000.0
"""For the template that writes the date."""

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MISTRAL = """
{{- bos_token }}
{%- set system = messages[0].content if messages[0].role == 'system' else none %}
{%- for m in (messages[1:] if system else messages) %}
  {%- if m.role == 'user' %}
    {{- '[INST] ' + (system + '\n\n' if loop.first and system else '') + m.content + ' [/INST]' }}
  {%- elif m.role == 'assistant' and not m.tool_calls %}
    {{- ' ' + m.content + eos_token }}
  {%- else %}
    {{- raise_exception('no calls') }}
  {%- endif %}
{%- endfor %}"""
MISTRAL_TOOLS = """
{{- bos_token }}
{%- set system = messages[0].content if messages[0].role == 'system' else none %}
{%- set ns = namespace(last=none) %}
{%- for m in messages if m.role == 'user' %}{% set ns.last = m %}{% endfor %}
{%- for m in messages %}
  {%- if m.role == 'user' %}
    {%- if m is sameas ns.last and tools %}
      {{- '[AVAILABLE_TOOLS] [' }}
      {%- for t in tools %}
        {{- t | tojson }}{{- ', ' if not loop.last else '' }}
      {%- endfor %}
      {{- '][/AVAILABLE_TOOLS]' }}
    {%- endif %}
    {{- '[INST] ' + (system + '\n\n' if m is sameas ns.last and system else '') }}
    {{- m.content + '[/INST]' }}
  {%- elif m.role == 'assistant' and m.tool_calls %}
    {{- '[TOOL_CALLS] [' }}
    {%- for c in m.tool_calls %}
      {{- '{"name": "' + c.function.name + '", "arguments": ' }}
      {{- c.function.arguments | tojson }}{{- ', "id": "' + c.id + '"}' }}
      {{- ', ' if not loop.last else ']' + eos_token }}
    {%- endfor %}
  {%- elif m.role == 'assistant' %}
    {{- ' ' + m.content + eos_token }}
  {%- elif m.role == 'tool' %}
    {{- '[TOOL_RESULTS] {"content": ' + m.content + ', "call_id": "' + m.tool_call_id + '"}' }}
    {{- '[/TOOL_RESULTS]' }}
  {%- endif %}
{%- endfor %}"""

TRL = (
    "gemma",
    "gemma3",
    "llama3",
    "llama3_1",
    "llama3_2",
    "phi3",
    "phi3_5",
    "qwen2_5",
    "qwen3",
    "qwen3_instruct_2507",
)
OWN = {"smollm2": SMOLLM2, "mistral": MISTRAL, "mistral with tools": MISTRAL_TOOLS}
NAMES = (*TRL, *OWN, "tiny")


@cache
def renderer(name: str) -> Renderer:
    """Return the template of this name on the tokenizer of the tiny base."""
    template = ChatTemplate(_tokenizer(name), TemplateContext(time=TIME))
    return Renderer(template, first_token(template))


def _tokenizer(name: str) -> Any:
    if name in TRL:
        return template_tokenizer(name)
    tokenizer = copy.deepcopy(AutoTokenizer.from_pretrained(TINY))
    if name in OWN:
        tokenizer.chat_template = OWN[name]
    if name.startswith("mistral"):
        marks = ("INST", "AVAILABLE_TOOLS", "TOOL_RESULTS")
        texts = [f"[{slash}{mark}]" for mark in marks for slash in ("", "/")] + ["[TOOL_CALLS]"]
        tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in texts])
        tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    return tokenizer
