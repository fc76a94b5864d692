"""Adapters of PEFT for SmolLM2 through the whole service: taken, served, and taken away again."""

import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from openai import OpenAI
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.spec.base_model import BaseModelSpec
from tests.core.made_models.made_by_peft import make
from tests.core.made_models.trained_qlora import train_qlora
from tests.end_to_end.adapters import zipped
from tests.end_to_end.making import exported, made, send
from tests.end_to_end.service import Service, upload, wait_until
from tests.real import rows
from tests.real.answers import require_equal, written_by_the_endpoint, written_by_transformers
from tests.real.jobs import QUESTION

TIMEOUT_SECONDS = 1500
pytestmark = [
    pytest.mark.timeout(TIMEOUT_SECONDS + 300),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

QV = {"target_modules": ["q_proj", "v_proj"]}
LORA: dict[str, dict[str, Any]] = {
    "LoRA": QV,
    "rsLoRA": {**QV, "use_rslora": True},
    "DoRA": {**QV, "use_dora": True},
    "all layers": {"target_modules": "all-linear"},
    "patterns": {
        **QV,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {r"layers\.(1|2)\.self_attn\.v_proj": 32},
    },
    "modules_to_save": {**QV, "modules_to_save": ["norm"]},
    "tokens": {**QV, "trainable_token_indices": [17, 300, 4000]},
}
KINDS: dict[str, peft.PeftConfig] = {
    **{
        name: peft.LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **options)
        for name, options in LORA.items()
    },
    "(IA)³": peft.IA3Config(task_type="CAUSAL_LM"),
    "prefix": peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "prompt": peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "P-tuning": peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=32
    ),
}
NEW_TOKENS = 12


@pytest.fixture
def base(smollm2: Path) -> BaseModelSpec:
    return BaseModelSpec(id="smollm2", source=str(smollm2))


def import_folder(client: OpenAI, folder: Path) -> dict[str, Any]:
    body = {"model": "smollm2", "file": send(client, zipped(folder))}
    found = made(client, "/models/import", body)
    assert found["status"] == "succeeded", found["error"]
    assert found["parity"]["status"] == "passed", found["parity"]
    return found


def require_same(client: OpenAI, model: str, smollm2: Path, plain: Any) -> None:
    """The endpoint writes what a model of transformers or PEFT writes."""
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    text = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(text, add_special_tokens=False).input_ids
    expected = written_by_transformers(plain.eval(), tokenizer, prompt, NEW_TOKENS)
    require_equal(written_by_the_endpoint(client, model, QUESTION, NEW_TOKENS), expected)


def by_peft(smollm2: Path, folder: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(model, str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_served_and_exported(
    service: Service, smollm2: Path, base: BaseModelSpec, tmp_path: Path, kind: str
) -> None:
    client = service.client
    make(KINDS[kind], base, tmp_path / "saved", spread=0.03)
    found = import_folder(client, tmp_path / "saved")
    print(kind, found["parity"])
    require_same(client, found["model"], smollm2, by_peft(smollm2, tmp_path / "saved"))
    is_virtual = found["strategy"]["type"] in ("prefix", "prompt")
    form = "adapter" if is_virtual else "merged"
    out = tmp_path / "out"
    export = exported(client, found["model"], out, format="huggingface", form=form)
    print(kind, export["replay"])
    assert export["replay"]["status"] == "passed", export["replay"]
    assert export["replay"]["distance"]["adapter_share"] == pytest.approx(1, abs=0.05)
    plain = by_peft(smollm2, out) if is_virtual else AutoModelForCausalLM.from_pretrained(out)
    require_same(client, found["model"], smollm2, plain)


def test_a_trained_qlora_is_trained_further_and_exported(
    service: Service, smollm2: Path, base: BaseModelSpec, tmp_path: Path
) -> None:
    client, tokenizer = service.client, AutoTokenizer.from_pretrained(smollm2)
    texts = [row["messages"][-1]["content"] for row in rows.chat_rows("train")[:4]]
    encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=32)
    tokens = torch.tensor(encoded.input_ids)
    saved = tmp_path / "saved"
    losses = train_qlora(base, saved, tokens, steps=6, learning_rate=2e-3, modules_to_save=["norm"])
    print("losses", losses)
    assert losses[-1] < losses[0]
    found = import_folder(client, saved)
    print("import", found["parity"])
    require_same(client, found["model"], smollm2, by_peft(smollm2, saved))

    rows.write_chat(tmp_path / "chat.jsonl")
    job = client.fine_tuning.jobs.create(
        model=found["model"],
        training_file=upload(client, tmp_path / "chat.jsonl"),
        extra_body={"strategy": {"type": "qlora"}, "training": {"max_steps": 3}},
    )
    job = wait_until(client, job.id, "succeeded", silence_seconds=TIMEOUT_SECONDS)
    assert job.fine_tuned_model is not None
    assert job.to_dict()["strategy"]["type"] == "qlora"
    parity = client.models.retrieve(job.fine_tuned_model).to_dict()["parity"]
    assert parity["status"] == "passed", parity
    for model, name in ((found["model"], "import"), (job.fine_tuned_model, "further")):
        export = exported(client, model, tmp_path / name, format="merged", precision="fp32")
        print(name, export["replay"])
        assert export["replay"]["status"] == "passed", export["replay"]
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        require_same(client, model, smollm2, plain)
