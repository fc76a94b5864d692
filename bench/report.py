"""The tables of a benchmark run, and its files in bench/results."""

import dataclasses
import datetime
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from bench.data import SMALL, ModelSize
from bench.measure import hardware, median_ratio
from bench.results import FOLDER, save_table


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
class CaseReport:
    """One strategy: figures, loss curves, and peak bytes above the base, by contender."""

    strategy: str
    reference: str
    flops_per_parameter: int
    figures: tuple[Figures, ...]
    curves: tuple[CurveAgreement, ...]
    memory_bytes: dict[str, int]

    def named(self, name: str) -> Figures:
        return next(figures for figures in self.figures if figures.name == name)

    def best_peer(self, *, fp32_only: bool) -> Figures:
        """The fastest setting of TRL."""
        peers = [figures for figures in self.figures if figures.name.startswith("TRL")]
        if fp32_only:
            peers = [figures for figures in peers if figures.name.endswith("fp32")]
        return max(peers, key=lambda figures: figures.median)

    def headlines(self, ceilings: dict[str, float]) -> list[str]:
        """Compare ours with TRL's best. `ceilings`: tokens/s for one FLOP per token."""
        lines = []
        for precision in ceilings if self.figures else ():
            ours = self.named(f"Tunesmith {precision}")
            best = self.best_peer(fp32_only=precision == "fp32")
            ratio = median_ratio(ours.tokens_per_second, best.tokens_per_second)
            share = ours.median / (ceilings[precision] / self.flops_per_parameter)
            lines.append(
                f"{ours.name} is **{ratio:.2f} times** the best of TRL ({best.name}), at "
                f"{share:.0%} of what this machine's matmuls alone allow."
            )
            lines.extend(self._memory_line(ours, best))
        for curve in self.curves:
            lines.append(
                f"Loss over {len(curve.distances)} steps, {curve.ours} against {curve.peer}: "
                f"max |Δ| {max(curve.distances):.1e}, mean |Δ| "
                f"{statistics.mean(curve.distances):.1e}."
            )
        return lines

    def _memory_line(self, ours: Figures, best: Figures) -> list[str]:
        """Compare ours with the fastest setting whose micro-batch has the same tokens."""
        if best.name not in self.memory_bytes:
            same = [name for name in self.memory_bytes if name.startswith("TRL")]
            fp32 = best.name.endswith("fp32")
            same = [name for name in same if name.endswith("fp32")] if fp32 else same
            if not same:
                return []
            best = max((self.named(name) for name in same), key=lambda peer: peer.median)
        mine, theirs = self.memory_bytes[ours.name], self.memory_bytes[best.name]
        return [
            f"{ours.name} takes {mine / 2**20:.0f} MiB above its base at its peak, "
            f"**{mine / theirs:.2f} times** as much as {best.name}."
        ]

    def table(self, steps: int) -> list[str]:
        best = self.best_peer(fp32_only=False)
        lines = [
            f"| | rounds | real tokens/s | ratio to {best.name} | seconds to {steps} steps | "
            "peak MiB above the base |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for figures in self.figures:
            ratio = median_ratio(figures.tokens_per_second, best.tokens_per_second)
            seconds = statistics.median(figures.seconds_to_last_step)
            peak = self.memory_bytes.get(figures.name)
            memory = "" if peak is None else f"{peak / 2**20:.0f}"
            cells = (
                figures.name,
                str(len(figures.tokens_per_second)),
                f"{figures.median:.0f}",
                f"{ratio:.2f}",
                f"{seconds:.1f}",
                memory,
            )
            lines.append(f"| {' | '.join(cells)} |")
        return lines


@dataclass(frozen=True)
class Report:
    clock: str
    size: ModelSize
    rows_tokens: tuple[int, ...]
    targets: int
    steps: int
    cases: tuple[CaseReport, ...]
    matmul_gigaflops: dict[str, float]

    @property
    def labelled_share(self) -> float:
        return self.targets / sum(self.rows_tokens)

    def ceilings(self) -> dict[str, float]:
        """Return tokens/s at the measured matmul peak for one FLOP per parameter and token."""
        parameters = self.size.matmul_parameters(self.labelled_share)
        return {name: peak * 1e9 / parameters for name, peak in self.matmul_gigaflops.items()}

    @property
    def is_measured(self) -> bool:
        """Whether the report has more than loss curves."""
        return any(case.figures for case in self.cases)

    def markdown(self) -> str:
        """Return Markdown: the setup, then a table with headlines per strategy."""
        title = "Training throughput and memory" if self.is_measured else "Loss curves"
        rows_per_step = "8 rows" if self.is_measured else "2 rows"
        lines = [
            f"# {title}, {datetime.date.today().isoformat()}",
            "",
            f"{hardware(torch.get_num_threads())}; {self.clock}; torch {torch.__version__}, "
            f"transformers {version('transformers')}, TRL {version('trl')}, "
            f"PEFT {version('peft')}. Llama {self.size.name} with a vocabulary of "
            f"{self.size.vocabulary:,}, {len(self.rows_tokens)} rows of "
            f"{statistics.mean(self.rows_tokens):.0f} tokens on "
            f"average ({min(self.rows_tokens)} to {max(self.rows_tokens)}), "
            f"{self.labelled_share:.0%} labelled, {rows_per_step} per step.",
        ]
        for case in self.cases:
            lines += ["", f"## {case.strategy}: TRL with {case.reference}", ""]
            if case.figures:
                lines += [*case.table(self.steps), ""]
            lines += [f"- {line}" for line in case.headlines(self.ceilings())]
        return "\n".join([*lines, ""])


def save(report: Report, folder: Path = FOLDER) -> tuple[Path, Path]:
    """Write the report as JSON and as Markdown, named by hardware, vocabulary and date."""
    kind = "training" if report.is_measured else "loss-curves"
    variant = "" if report.size == SMALL else report.size.name
    return save_table(kind, report.markdown(), dataclasses.asdict(report), folder, variant)
