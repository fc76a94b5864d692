"""What open event streams cost the API: `python -m bench.event_streams [--streams 1000] [--save]`.

An API with a database of waiting jobs, and nothing else: the streams are open, and their jobs have
no news. Meanwhile one client reads a job again and again.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from bench.processes import api_process
from bench.results import save_table, set_up, table

JOBS = "/v1/fine_tuning/jobs"
FOLLOWED = 100
"""Jobs that the streams are spread over."""
READS = 300
IDLE_SECONDS = 5.0
ROW = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}\n'


@dataclass(frozen=True)
class Load:
    """Milliseconds of `GET` of a job, and the share of a core that the streams take."""

    streams: int
    p50: float
    p95: float
    longest: float
    cores: float
    """While nobody reads a job."""


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    options.add_argument("--streams", default="0,200,1000", help="numbers of open streams")
    options.add_argument("--save", action="store_true")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, api_process(Path(folder)) as (process, port):
        url = f"http://127.0.0.1:{port}"
        jobs = _jobs(url)
        counts = [int(each) for each in asked.streams.split(",")]
        loads = [asyncio.run(_measure(url, jobs, process.pid, count)) for count in counts]
    report = "\n".join([*set_up("Open event streams"), *table("`GET` of a job beside them", loads)])
    print(report)
    if asked.save:
        print("Saved:", *save_table("event-streams", report + "\n", [asdict(x) for x in loads]))


def _jobs(url: str) -> list[str]:
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        form = {"data": {"purpose": "fine-tune"}, "files": {"file": ("rows.jsonl", ROW * 20)}}
        file = client.post("/v1/files", **form).json()["id"]  # type: ignore[arg-type]
        body = {"model": "tunesmith/tiny", "training_file": file}
        return [client.post(JOBS, json=body).json()["id"] for _ in range(FOLLOWED)]


async def _measure(url: str, jobs: list[str], pid: int, count: int) -> Load:
    streams = [await _open(url, jobs[number % len(jobs)]) for number in range(count)]
    await asyncio.sleep(1)
    before, began = _cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(IDLE_SECONDS)
    cores = (_cpu_seconds(pid) - before) / (time.monotonic() - began)
    taken = []
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        for number in range(READS):
            started = time.perf_counter()
            answer = await client.get(f"{JOBS}/{jobs[number % len(jobs)]}")
            taken.append(1000 * (time.perf_counter() - started))
            if answer.status_code != 200:
                raise SystemExit(answer.text)
    for _, writer in streams:
        writer.close()
    shares = statistics.quantiles(taken, n=20)
    return Load(count, statistics.median(taken), shares[-1], max(taken), cores)


async def _open(url: str, job: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream and read its first event."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {JOBS}/{job}/events?stream=true HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    await reader.readuntil(b"data: ")
    return reader, writer


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
