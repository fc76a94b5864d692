"""The table of the serving benchmark."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.measure import median_ratio
from bench.results import set_up
from bench.serving_setting import NEW_TOKENS, PROMPT_TOKENS, RANK, Setting, weight_bytes


@dataclass(frozen=True)
class Turn:
    """One contender in one round."""

    tokens_per_second: float
    stolen: float
    """The share of CPU time that the host gave to others."""


def markdown(setting: Setting, turns: Mapping[str, Sequence[Turn]]) -> str:
    """Return the table, followed by the key ratios."""
    requests = len(setting.prompts)
    speeds = {name: [turn.tokens_per_second for turn in own] for name, own in turns.items()}
    base_bytes, adapter_bytes = weight_bytes(setting)
    lines = [
        *set_up("Serving: written tokens per second"),
        f"Llama {setting.size.name} in fp32, {requests} requests at once, with {PROMPT_TOKENS} "
        f"tokens of prompt and {NEW_TOKENS} of answer each, adapters of rank {RANK} on all linear "
        "layers.",
        "",
        "| | tokens/s | lowest | highest | stolen |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, values in speeds.items():
        middle = statistics.median(values)
        stolen = max(turn.stolen for turn in turns[name])
        lines.append(
            f"| {name} | {middle:.0f} | {min(values):.0f} | {max(values):.0f} | {stolen:.0%} |"
        )
    lines.append("")
    ours = speeds["Tunesmith, base"]
    for count in (1, 8, 32):
        name = f"Tunesmith, {count} adapters"
        if name in speeds:
            cap = base_bytes / (base_bytes + count * adapter_bytes)
            share = median_ratio(speeds[name], ours)
            lines.append(
                f"- {count} adapters: {share:.2f} of the speed of the base alone; the byte cap "
                f"W/(W + Σ adapter bytes) is {cap:.2f}, so **{share / cap:.2f} of the cap**."
            )
    for name, values in speeds.items():
        mine = f"Tunesmith, {name.split(', ')[-1]}"  # with the same adapters
        if mine != name and mine in speeds:
            ratio = median_ratio(speeds[mine], values)
            lines.append(f"- {mine} is **{ratio:.2f} times** {name}.")
    return "\n".join([*lines, ""])
