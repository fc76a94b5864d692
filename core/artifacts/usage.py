"""The usage section of the model card, with code to copy."""

from typing import assert_never

from core.artifacts.manifest import public_name
from core.catalog.strategies import STRATEGIES
from core.catalog.tasks import TASKS
from core.spec.objective import ClassificationSpec
from core.spec.tuned import TunedSpec

_QUANTIZED = {
    "nf4": (
        'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", '
        "bnb_4bit_use_double_quant=True)"
    ),
    "int8": "BitsAndBytesConfig(load_in_8bit=True)",
}


def usage(spec: TunedSpec) -> list[str]:
    """Return Markdown lines: usage with the library, then with the service."""
    library = STRATEGIES[spec.strategy.type].library
    match library:
        case "tunesmith":
            own = [
                "PEFT does not support bottleneck adapters, so this folder runs in Tunesmith only. "
                "`adapter_config.json` lists the layers; each adds up(activation(down(x))) to the "
                "output of the module at its path.",
                "",
            ]
        case "transformers":
            own = ["With transformers, from this folder:", "", *_python(_full_model(spec))]
        case "peft":
            stands_for = public_name(spec.base) != spec.base.source
            note = f"; replace `{public_name(spec.base)}` by a local folder with that model"
            own = [
                f"With PEFT, from this folder{note if stands_for else ''}:",
                "",
                *_python(_adapter(spec)),
            ]
        case _:
            assert_never(library)
    return [*own, "From the service that made it:", "", *_request(spec)]


def _full_model(spec: TunedSpec) -> list[str]:
    name = TASKS[spec.task].model_class
    return [
        f"from transformers import {name}, AutoTokenizer",
        "",
        f'model = {name}.from_pretrained(".")',
        'tokenizer = AutoTokenizer.from_pretrained(".")',
    ]


def _adapter(spec: TunedSpec) -> list[str]:
    name = TASKS[spec.task].model_class
    options = f', revision="{spec.base.revision}"' if spec.base.revision else ""
    if isinstance(spec.objective, ClassificationSpec):
        options += f", num_labels={len(spec.objective.labels)}"
    config = _QUANTIZED.get(spec.base.quantization or "")
    if config is not None:
        options += f", quantization_config={config}"
    return [
        "from peft import PeftModel",
        f"from transformers import {name}, AutoTokenizer{', BitsAndBytesConfig' if config else ''}",
        "",
        f'base = {name}.from_pretrained("{public_name(spec.base)}"{options})',
        'model = PeftModel.from_pretrained(base, ".")',
        'tokenizer = AutoTokenizer.from_pretrained(".")',
    ]


def _request(spec: TunedSpec) -> list[str]:
    if not TASKS[spec.task].answers_messages:
        return [
            "```sh",
            "curl http://localhost:8000/v1/classifications \\",
            '  -H "Authorization: Bearer …" -H "Content-Type: application/json" \\',
            '  -d \'{"model": "ft:…", "input": "A text to label"}\'',
            "```",
            "",
            "Use the id of the model.",
            "",
        ]
    return _python(
        [
            "from openai import OpenAI",
            "",
            'client = OpenAI(base_url="http://localhost:8000/v1", api_key="…")',
            "answer = client.chat.completions.create(",
            '    model="ft:…",  # the id of the model',
            '    messages=[{"role": "user", "content": "Hello"}],',
            ")",
        ]
    )


def _python(lines: list[str]) -> list[str]:
    return ["```python", *lines, "```", ""]
