"""Streams through the API: what the way costs a token, how many run at once, and what attacks do to
them: `make bench-streams`.

All processes are real, on loopback, and share the machine's clock.
"""

import argparse
import asyncio
import itertools
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import openai

import core.models
from bench.processes import api, free_port, process, service
from bench.results import save_table, set_up, table
from bench.stream_reader import MODEL, follow, to_api, to_engine

TINY = str(Path(core.models.__file__).parent / "tiny")
STREAMS = 500
DISTINCT = 50
"""Different requests; each is sent alone, and ten times among the others."""
ANSWER_TOKENS = 32
NO_END = {"0": -100, "2": -100}
"""A bias that prevents the tiny base from ending its answer."""


@dataclass(frozen=True)
class Delays:
    """Milliseconds from the model thread to the client."""

    way: str
    streams: int
    tokens: int
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Concurrency:
    """The results of 500 concurrent streams of OpenAI's client."""

    setting: str
    streams: int
    equal: int
    """Streams with the same text as the same request alone."""
    different: int
    failed: dict[str, int]


@dataclass(frozen=True)
class Gaps:
    """Milliseconds between two texts of one continuous stream."""

    attack: bool
    refused: int
    """Hostile requests answered in this time."""
    texts: int
    p50: float
    p99: float
    longest: float


def main() -> None:
    options = _options()
    parts: dict[str, Callable[[], Any]] = {
        "delays": delays,
        "concurrency": concurrency,
        "gaps": gaps,
    }
    found = {name: part() for name, part in parts.items() if name in options.only.split(",")}
    report = markdown(found)
    print(report)
    if options.save:
        figures = {name: [asdict(each) for each in rows] for name, rows in found.items()}
        print("Saved:", *save_table("streams", report, figures))


def delays() -> list[Delays]:
    """Measure with one stream, with a full batch of the default size, and with 500 streams."""
    found = []
    for streams, pace_seconds, tokens in ((1, 0.03, 200), (32, 0.03, 100), (STREAMS, 0.5, 20)):
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            url = f"http://127.0.0.1:{port}/healthz"
            metronome = "bench.metronome", str(port), str(pace_seconds), str(max(streams, 32))
            with api(Path(folder)) as api_port, process(*metronome, str(api_port), url=url):
                for way, to, request in (
                    ("engine alone", port, to_engine(tokens, TINY)),
                    ("through the API", api_port, to_api(tokens)),
                ):
                    asyncio.run(follow(to, request, streams))  # warms up
                    found.append(_delays(way, to, request, streams, tokens))
    return found


def _delays(way: str, port: int, request: bytes, streams: int, tokens: int) -> Delays:
    readers = asyncio.run(follow(port, request, streams))
    late = sorted(
        1000 * (arrived - float(emitted))
        for reader in readers
        for arrived, text in reader.texts()
        for emitted in text.split()
    )
    if len(late) != streams * tokens:
        raise SystemExit(f"{len(late)} tokens of {streams * tokens} arrived.")
    p50, p90, p99 = _percentiles(late, 50, 90, 99)
    return Delays(way, streams, len(late), p50, p90, p99)


def concurrency() -> list[Concurrency]:
    """Send 500 concurrent requests to an engine with room for all, and to one with defaults."""
    roomy = {"TUNESMITH_ENGINE_MAX_BATCH": "512", "TUNESMITH_ENGINE_MAX_WAITING": "1024"}
    found = []
    for name, settings in (("room for all", roomy), ("default settings", {})):
        with tempfile.TemporaryDirectory() as folder:
            precise = {"TUNESMITH_ENGINE_PRECISION": "fp32"} | settings
            with service(Path(folder), **precise) as port:
                found.append(asyncio.run(_concurrency(name, f"http://127.0.0.1:{port}/v1")))
    return found


async def _concurrency(name: str, url: str) -> Concurrency:
    async with openai.AsyncOpenAI(base_url=url, api_key="none", timeout=600) as client:
        alone = [await _text(client, number) for number in range(DISTINCT)]
        answers = await asyncio.gather(
            *(_text(client, number % DISTINCT) for number in range(STREAMS)), return_exceptions=True
        )
    failed = Counter(type(each).__name__ for each in answers if isinstance(each, BaseException))
    equal = sum(answer == alone[number % DISTINCT] for number, answer in enumerate(answers))
    different = STREAMS - equal - failed.total()
    return Concurrency(name, STREAMS, equal, different, dict(failed))


async def _text(client: openai.AsyncOpenAI, seed: int) -> str:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"Question {seed}: what is a string?"}],
        max_tokens=ANSWER_TOKENS,
        seed=seed,
        stream=True,
    )
    return "".join([each.choices[0].delta.content or "" async for each in stream])


def gaps() -> list[Gaps]:
    """Measure one stream during an attack, and again without one."""
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as port:
        asyncio.run(follow(port, to_api(50)))
        return [asyncio.run(watch(port, attack)) for attack in (False, True, False, True)]


async def watch(port: int, attack: bool, streams: int = 4) -> Gaps:
    """Read a few long streams in sequence, with or without concurrent hostile requests."""
    command = [sys.executable, "-m", "bench.hostile_bodies", f"http://127.0.0.1:{port}"]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as attacker:
        assert attacker.stdin is not None and attacker.stdout is not None
        attacker.stdout.readline()  # its bodies are built before the stream starts
        if attack:
            attacker.stdin.write("go\n")
            attacker.stdin.flush()
        found: list[float] = []
        for _ in range(streams):
            [reader] = await follow(port, to_api(900, temperature=0, logit_bias=NO_END))
            times = [arrived for arrived, _ in reader.texts()]
            found += [1000 * (after - before) for before, after in itertools.pairwise(times)]
        attacker.kill()
        outcomes = attacker.stdout.read().splitlines()
    p50, p99 = _percentiles(sorted(found), 50, 99)
    return Gaps(attack, len(outcomes), len(found), p50, p99, max(found))


def _percentiles(ordered: list[float], *shares: int) -> list[float]:
    return [ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in shares]


def markdown(found: dict[str, list[Any]]) -> str:
    lines = [*set_up("Streams through the API")]
    titles = {
        "delays": "Milliseconds from the model thread to the client",
        "concurrency": "Streams of the stock client at once",
        "gaps": "Milliseconds between two texts of one stream, attacked and not",
    }
    for name, rows in found.items():
        lines += table(titles[name], rows)
    return "\n".join([*lines, ""])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="delays,concurrency,gaps", help="parts to measure")
    parser.add_argument("--save", action="store_true", help="write the table into bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
