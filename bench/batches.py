"""What a batch costs: `make bench-batches`.

Its throughput is compared with that of the same requests to the API and to the engine itself, and
the latency of a live stream beside it with that of one alone. All processes are real, on loopback,
and share the machine's clock. Requests to the engine itself keep it full at the least cost: their
client only writes and reads bytes.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from bench.processes import service
from bench.results import save_table, set_up, table
from bench.stream_reader import MODEL, follow, post, to_api
from core.catalog.bases import Catalog
from core.records.database import Database
from core.records.engines import living_engines

ANSWER_TOKENS = 16
NO_END = {"0": -100, "2": -100}
"""A bias that prevents the tiny base from ending its answer."""
DIRECT = 64
"""Concurrent direct requests: twice the engine's default batch."""
STREAM_TOKENS = 200
KEY = "bench"
"""Of the engine."""
POLL_SECONDS = 0.2
FILL_SECONDS = 5.0
"""Until the batch has filled the engine."""


@dataclass(frozen=True)
class Throughput:
    """Requests of the same content, sent in one of two ways."""

    way: str
    requests: int
    seconds: float
    requests_per_second: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds of live streams, sent one after another."""

    beside: str
    streams: int
    first_token_p50: float
    first_token_max: float
    token_mean: float
    token_p50: float
    token_p99: float


def main() -> None:
    options = _options()
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), TUNESMITH_ENGINE_KEY=KEY) as port,
    ):
        asyncio.run(follow(port, to_api(20)))  # loads the base
        found: dict[str, list[Any]] = {}
        if "throughput" in options.only:
            found["throughput"] = throughput(
                port, _engine_port(Path(folder)), options.requests, options.rounds
            )
        if "latency" in options.only:
            found["latency"] = latency(port, options.streams)
    report = markdown(found)
    print(report)
    if options.save:
        figures = {name: [asdict(each) for each in rows] for name, rows in found.items()}
        print("Saved:", *save_table("batches", report, figures))


def throughput(port: int, engine_port: int, requests: int, rounds: int) -> list[Throughput]:
    """Answer the same requests in three ways, in turns; return all rounds."""
    ways: dict[str, Callable[[int], float]] = {
        "engine": partial(_to_engine, engine_port),
        "direct": partial(_direct, port),
        "batch": partial(_batch, port),
    }
    found = []
    for _ in range(rounds):
        for way, run in ways.items():
            seconds = run(requests)
            found.append(Throughput(way, requests, seconds, requests / seconds))
    return found


def _body(number: int, max_tokens: int = ANSWER_TOKENS) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Question {number}: what is a string?"}],
        "max_tokens": max_tokens,
        "seed": number,
        "logit_bias": NO_END,
    }


def _engine_port(folder: Path) -> int:
    """Return the port of the only engine of the service on a data folder."""
    database = Database(f"sqlite:///{folder}/tunesmith.db")
    with database.reading() as session:
        (engine,) = living_engines(session)
    database.close()
    return int(engine.url.rpartition(":")[2])


def _to_engine(port: int, requests: int) -> float:
    """Send the requests to the engine itself, DIRECT at once; return the seconds."""
    base = Catalog.load().resolve(MODEL).model_dump(mode="json")

    def request(number: int) -> bytes:
        chat = _body(number)
        sampling = {
            "max_tokens": chat["max_tokens"],
            "seed": chat["seed"],
            "logit_bias": chat["logit_bias"],
        }
        prompt = {"type": "chat", "messages": chat["messages"]}
        body = {"id": str(number), "base": base, "prompt": prompt, "sampling": sampling}
        return post("/generate", body, KEY)

    async def send_all() -> float:
        numbers = iter(range(requests))

        async def send() -> None:
            for number in numbers:
                [reader] = await follow(port, request(number))
                if sum(1 for _ in reader.texts()) == 0:
                    raise SystemExit("The engine did not answer.")

        began = time.monotonic()
        await asyncio.gather(*(send() for _ in range(DIRECT)))
        return time.monotonic() - began

    return asyncio.run(send_all())


def _direct(port: int, requests: int) -> float:
    """Send the requests to the API, DIRECT at once; return the seconds."""

    async def send_all() -> float:
        numbers = iter(range(requests))
        limits = httpx.Limits(max_connections=DIRECT, max_keepalive_connections=DIRECT)
        async with httpx.AsyncClient(timeout=600, limits=limits, trust_env=False) as client:

            async def send() -> None:
                for number in numbers:
                    answer = await client.post(
                        f"http://127.0.0.1:{port}/v1/chat/completions", json=_body(number)
                    )
                    answer.raise_for_status()

            began = time.monotonic()
            await asyncio.gather(*(send() for _ in range(DIRECT)))
            return time.monotonic() - began

    return asyncio.run(send_all())


def _batch(port: int, requests: int, max_tokens: int = ANSWER_TOKENS) -> float:
    """Run the requests as a batch; return the seconds from its creation to its end."""
    client = _client(port)
    began, batch_id = _begin_batch(client, requests, max_tokens)
    while (batch := client.batches.retrieve(batch_id)).status != "completed":
        if batch.status in ("failed", "expired", "cancelled"):
            raise SystemExit(f"The batch is {batch.status}.")
        time.sleep(POLL_SECONDS)
    seconds = time.monotonic() - began
    if batch.request_counts is None or batch.request_counts.completed != requests:
        raise SystemExit(f"The batch answered {batch.request_counts} of {requests}.")
    return seconds


def _client(port: int) -> OpenAI:
    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")


def _begin_batch(client: OpenAI, requests: int, max_tokens: int) -> tuple[float, str]:
    """Create a batch; return the time and its id."""
    url = "/v1/chat/completions"
    lines = (
        {"custom_id": str(n), "method": "POST", "url": url, "body": _body(n, max_tokens)}
        for n in range(requests)
    )
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    began = time.monotonic()
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    return began, batch.id


def latency(port: int, streams: int) -> list[Latency]:
    """Measure live streams alone and beside a batch that fills the engine, twice in turns."""
    found = []
    for _ in range(2):
        found.append(stream_latency("nothing", port, streams))
        client = _client(port)
        _, batch_id = _begin_batch(client, 5000, 64)
        while client.batches.retrieve(batch_id).status == "validating":
            time.sleep(POLL_SECONDS)
        time.sleep(FILL_SECONDS)
        found.append(stream_latency("a full batch", port, streams))
        client.batches.cancel(batch_id)
        while client.batches.retrieve(batch_id).status != "cancelled":
            time.sleep(POLL_SECONDS)
    return found


def stream_latency(beside: str, port: int, streams: int) -> Latency:
    """Measure streams of the tiny base, one after another; `beside` is only a label."""
    first, gaps = [], []
    for _ in range(streams):
        began = time.monotonic()
        request = to_api(STREAM_TOKENS, temperature=0, logit_bias=NO_END)
        [reader] = asyncio.run(follow(port, request))
        times = [arrived for arrived, _ in reader.texts()]
        first.append(1000 * (times[0] - began))
        gaps += [1000 * (after - before) for before, after in itertools.pairwise(times)]
        time.sleep(0.5)  # the batch fills the engine again
    gaps.sort()
    return Latency(
        beside,
        streams,
        statistics.median(first),
        max(first),
        statistics.mean(gaps),
        gaps[len(gaps) // 2],
        gaps[len(gaps) * 99 // 100],
    )


def markdown(found: dict[str, list[Any]]) -> str:
    lines = [*set_up("Batches")]
    titles = {
        "throughput": "The same requests to the engine itself, to the API, and as a batch",
        "latency": "Milliseconds of a live stream",
    }
    for name, rows in found.items():
        lines += table(titles[name], rows)
    if "throughput" in found:
        rows = found["throughput"]
        seconds = {
            way: statistics.median(row.seconds for row in rows if row.way == way)
            for way in ("engine", "direct", "batch")
        }
        lines += [
            "",
            f"Batch to engine: {seconds['engine'] / seconds['batch']:.2f}; "
            f"batch to direct: {seconds['direct'] / seconds['batch']:.2f}",
        ]
    return "\n".join([*lines, ""])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a batch costs.")
    parser.add_argument("--only", default="throughput,latency", help="parts to measure")
    parser.add_argument("--requests", type=int, default=10_000, help="of a batch")
    parser.add_argument("--rounds", type=int, default=2, help="of both ways")
    parser.add_argument("--streams", type=int, default=10, help="live streams")
    parser.add_argument("--save", action="store_true", help="write the table into bench/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
