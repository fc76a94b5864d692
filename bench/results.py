"""The head of a table of results, and its files in bench/results."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench.measure import hardware, slug

FOLDER = Path(__file__).parent / "results"


def set_up(title: str, clock: str = "wall time") -> list[str]:
    """Return the lines about hardware, date and versions."""
    return [
        f"# {title}, {datetime.date.today().isoformat()}",
        "",
        f"{hardware(torch.get_num_threads())}; {clock}; torch {torch.__version__}, "
        f"transformers {version('transformers')}, PEFT {version('peft')}.",
    ]


def table(title: str, rows: Sequence[Any]) -> list[str]:
    """Return the lines of a table of dataclasses of one kind, with its title."""
    columns = list(asdict(rows[0]))
    lines = ["", f"{title}:", "", "| " + " | ".join(columns) + " |"]
    lines.append("| " + " | ".join("---" for _ in columns) + " |")
    for row in rows:
        lines.append("| " + " | ".join(_cell(value) for value in asdict(row).values()) + " |")
    return lines


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def save_table(
    kind: str, markdown: str, figures: Any, folder: Path = FOLDER, variant: str = ""
) -> tuple[Path, Path]:
    """Write a table as Markdown and its figures as JSON, named by hardware, variant and date."""
    parts = kind, slug(hardware(torch.get_num_threads())), slug(variant)
    stem = "-".join(part for part in (*parts, datetime.date.today().isoformat()) if part)
    as_json, as_markdown = folder / f"{stem}.json", folder / f"{stem}.md"
    folder.mkdir(exist_ok=True)
    as_json.write_text(json.dumps(figures, indent=2, default=str) + "\n", encoding="utf-8")
    as_markdown.write_text(markdown, encoding="utf-8")
    return as_json, as_markdown
