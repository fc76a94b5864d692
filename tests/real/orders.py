"""The jobs on real bases: every strategy and objective, in fp32 and short."""

from tests.end_to_end.orders import Order

QUESTION = [
    {"role": "system", "content": "Which Python module has this docstring?"},
    {"role": "user", "content": "Return true if this widget is mapped."},
]

LORA = {"type": "lora", "rank": 8}
DPO = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
ORPO = {"type": "orpo", "orpo": {"hyperparameters": {"beta": 0.2}}}
SIMPO = {"type": "simpo", "simpo": {"hyperparameters": {"simpo_gamma": 0.5}}}
KTO = {"type": "kto", "kto": {"hyperparameters": {"undesirable_weight": 1.5}}}

ORDERS = {
    "lora": Order("chat.jsonl", LORA, "smollm2", 2e-3),
    "dora": Order("chat.jsonl", LORA | {"use_dora": True}, "smollm2", 2e-3),
    "qlora": Order("chat.jsonl", {"type": "qlora", "rank": 8}, "smollm2", 2e-3),
    "full": Order("chat.jsonl", {"type": "full"}, "smollm2", 1e-4),
    "bottleneck": Order("chat.jsonl", {"type": "bottleneck"}, "smollm2", 3e-4),
    "prefix": Order("chat.jsonl", {"type": "prefix"}, "smollm2", 0.05),
    "prompt": Order(
        "chat.jsonl", {"type": "prompt", "init_text": "Name the module."}, "smollm2", 0.05
    ),
    "ia3": Order("chat.jsonl", {"type": "ia3"}, "smollm2", 2e-2),
    "several turns": Order("turns.jsonl", LORA, "smollm2", 2e-3),
    "prompt and completion": Order("completions.jsonl", LORA, "smollm2", 2e-3),
    "pretraining": Order("texts.jsonl", LORA, "smollm2", 2e-3),
    "dpo": Order("preferences.jsonl", LORA, "smollm2", 1e-3, method=DPO),
    "orpo": Order("preferences.jsonl", LORA, "smollm2", 1e-3, method=ORPO),
    "simpo": Order("preferences.jsonl", LORA, "smollm2", 5e-4, method=SIMPO),
    "kto": Order("rated.jsonl", LORA, "smollm2", 1e-3, method=KTO),
    "kto on preferences, ia3": Order(
        "preferences.jsonl", {"type": "ia3"}, "smollm2", 1e-2, method=KTO
    ),
}
