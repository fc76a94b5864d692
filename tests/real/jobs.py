"""The jobs on real bases: every strategy and objective, in fp32 and short."""

from tests.end_to_end.jobs import JobCase

QUESTION = [
    {"role": "system", "content": "Which Python module has this docstring?"},
    {"role": "user", "content": "Return true if this widget is mapped."},
]

LORA = {"type": "lora", "rank": 8}
DPO = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
ORPO = {"type": "orpo", "orpo": {"hyperparameters": {"beta": 0.2}}}
SIMPO = {"type": "simpo", "simpo": {"hyperparameters": {"simpo_gamma": 0.5}}}
KTO = {"type": "kto", "kto": {"hyperparameters": {"undesirable_weight": 1.5}}}

JOBS = {
    "lora": JobCase("chat.jsonl", LORA, "smollm2", 2e-3),
    "dora": JobCase("chat.jsonl", LORA | {"use_dora": True}, "smollm2", 2e-3),
    "qlora": JobCase("chat.jsonl", {"type": "qlora", "rank": 8}, "smollm2", 2e-3),
    "full": JobCase("chat.jsonl", {"type": "full"}, "smollm2", 1e-4),
    "bottleneck": JobCase("chat.jsonl", {"type": "bottleneck"}, "smollm2", 3e-4),
    "prefix": JobCase("chat.jsonl", {"type": "prefix"}, "smollm2", 0.05),
    "prompt": JobCase(
        "chat.jsonl", {"type": "prompt", "init_text": "Name the module."}, "smollm2", 0.05
    ),
    "ia3": JobCase("chat.jsonl", {"type": "ia3"}, "smollm2", 2e-2),
    "several turns": JobCase("turns.jsonl", LORA, "smollm2", 2e-3),
    "prompt and completion": JobCase("completions.jsonl", LORA, "smollm2", 2e-3),
    "pretraining": JobCase("texts.jsonl", LORA, "smollm2", 2e-3),
    "dpo": JobCase("preferences.jsonl", LORA, "smollm2", 1e-3, method=DPO),
    "orpo": JobCase("preferences.jsonl", LORA, "smollm2", 1e-3, method=ORPO),
    "simpo": JobCase("preferences.jsonl", LORA, "smollm2", 5e-4, method=SIMPO),
    "kto": JobCase("rated.jsonl", LORA, "smollm2", 1e-3, method=KTO),
    "kto on preferences, ia3": JobCase(
        "preferences.jsonl", {"type": "ia3"}, "smollm2", 1e-2, method=KTO
    ),
}
