"""The one table of a benchmark run, and its files in bench/results."""

import dataclasses
import datetime
import json
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from bench.data import matmul_parameters
from bench.measure import hardware, median_ratio, slug


@dataclass(frozen=True)
class Figures:
    """One contender, one figure per round."""

    name: str
    tokens_per_second: tuple[float, ...]
    seconds_to_last_step: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.tokens_per_second)


@dataclass(frozen=True)
class CurveAgreement:
    """|loss of ours - loss of TRL| per step, mean nats per labelled token."""

    ours: str
    peer: str
    distances: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    clock: str
    rows_tokens: tuple[int, ...]
    targets: int
    steps: int
    figures: tuple[Figures, ...]
    curves: tuple[CurveAgreement, ...]
    matmul_gigaflops: dict[str, float]

    @property
    def labelled_share(self) -> float:
        return self.targets / sum(self.rows_tokens)

    def named(self, name: str) -> Figures:
        return next(figures for figures in self.figures if figures.name == name)

    def best_peer(self, *, fp32_only: bool) -> Figures:
        """The fastest setting of TRL."""
        peers = [figures for figures in self.figures if figures.name.startswith("TRL")]
        if fp32_only:
            peers = [figures for figures in peers if figures.name.endswith("fp32")]
        return max(peers, key=lambda figures: figures.median)

    def headlines(self) -> list[str]:
        """Ours against TRL's best, and how near our losses are to TRL's."""
        lines = []
        for precision in ("bf16", "fp32"):
            ours = self.named(f"Tunesmith {precision}")
            best = self.best_peer(fp32_only=precision == "fp32")
            ratio = median_ratio(ours.tokens_per_second, best.tokens_per_second)
            ceiling = self.ceiling_tokens_per_second(precision)
            lines.append(
                f"{ours.name} is **{ratio:.2f} times** the best of TRL ({best.name}), at "
                f"{ours.median / ceiling:.0%} of what this machine's matmuls alone allow."
            )
        for curve in self.curves:
            lines.append(
                f"Loss over {len(curve.distances)} steps, {curve.ours} against {curve.peer}: "
                f"max |Δ| {max(curve.distances):.1e}, mean |Δ| "
                f"{statistics.mean(curve.distances):.1e}."
            )
        return lines

    def ceiling_tokens_per_second(self, precision: str) -> float:
        """4 FLOPs per parameter and token at the measured matmul peak, and nothing else."""
        flops_per_token = 4 * matmul_parameters(self.labelled_share)
        return self.matmul_gigaflops[precision] * 1e9 / flops_per_token

    def markdown(self) -> str:
        """The report as a reader sees it: set-up, table, headlines."""
        best = self.best_peer(fp32_only=False)
        lines = [
            f"# LoRA training throughput, {datetime.date.today().isoformat()}",
            "",
            f"{hardware(torch.get_num_threads())}; {self.clock}; torch {torch.__version__}, "
            f"transformers {version('transformers')}, TRL {version('trl')}, "
            f"PEFT {version('peft')}. 27M Llama, r=16 on all linear layers, "
            f"{len(self.rows_tokens)} rows of {statistics.mean(self.rows_tokens):.0f} tokens on "
            f"average ({min(self.rows_tokens)} to {max(self.rows_tokens)}), "
            f"{self.labelled_share:.0%} labelled, 8 rows per step.",
            "",
            f"| | real tokens/s | ratio to {best.name} | seconds to {self.steps} steps |",
            "| --- | ---: | ---: | ---: |",
        ]
        for figures in self.figures:
            ratio = median_ratio(figures.tokens_per_second, best.tokens_per_second)
            seconds = statistics.median(figures.seconds_to_last_step)
            lines.append(f"| {figures.name} | {figures.median:.0f} | {ratio:.2f} | {seconds:.1f} |")
        return "\n".join([*lines, "", *(f"- {line}" for line in self.headlines()), ""])


def save(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write the report as JSON and as Markdown, named by hardware and date."""
    today = datetime.date.today().isoformat()
    stem = f"training-{slug(hardware(torch.get_num_threads()))}-{today}"
    as_json, as_markdown = folder / f"{stem}.json", folder / f"{stem}.md"
    folder.mkdir(exist_ok=True)
    as_json.write_text(json.dumps(dataclasses.asdict(report), indent=2) + "\n", encoding="utf-8")
    as_markdown.write_text(report.markdown(), encoding="utf-8")
    return as_json, as_markdown
