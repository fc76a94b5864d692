"""Honest graders: their scores, what they may use, and many at once."""

import importlib.util
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.sandbox import run
from core.sandbox.availability import availability
from core.sandbox.commands import Kind
from core.sandbox.grading import run_in
from core.sandbox.limits import LIMITS, Limits
from core.sandbox.process import SandboxedProcess
from core.spec.grader import PythonOutcome
from tests.core.sandbox.conftest import Host
from tests.core.sandbox.hostile_programs import with_grade

ITEM: dict[str, Any] = {
    "answer": "Größe 📏",
    "half_of_a_pair": "\ud83d",
    "list": [1, 2.5, None, True, {"deep": [[[]]]}],
}
SAMPLE: dict[str, Any] = {"output_text": "yes", "output_json": {"a": 1}, "choices": []}


def score(kind: Kind, body: str, limits: Limits = LIMITS) -> float | None:
    outcome = run_in(kind, with_grade(body), SAMPLE, ITEM, limits)
    assert outcome.error is None, outcome.error
    return outcome.score


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.25", 0.25),
        ("1", 1.0),
        ("True", 1.0),
        ("-3", -3.0),
        ("1e300", 1e300),
        ("10 ** 300", 1e300),
    ],
)
def test_score_is_what_grade_returns(value: str, expected: float, kind: Kind) -> None:
    assert score(kind, f"return {value}") == expected


def test_grader_sees_sample_and_item_as_they_are(kind: Kind, host: Host) -> None:
    body = "import json; return json.loads(item['expected']) == [sample, item['given']]"
    item = {"given": ITEM, "expected": json.dumps([SAMPLE, ITEM])}
    assert run_in(kind, with_grade(body), SAMPLE, item, LIMITS) == PythonOutcome(score=1)


def test_large_items_are_sent_whole(kind: Kind) -> None:
    item = {"text": "x" * 5_000_000}
    outcome = run_in(kind, with_grade("return len(item['text'])"), {}, item, LIMITS)
    assert outcome == PythonOutcome(score=5_000_000)


def test_item_that_is_nested_too_deeply_is_an_error(kind: Kind) -> None:
    item: list[Any] = []
    for _ in range(100_000):
        item = [item]
    outcome = run_in(kind, with_grade("return 1"), {}, {"item": item}, LIMITS)
    assert outcome.error == "The sample or the item is nested too deeply."


def test_error_shows_the_lines_of_the_grader_only(kind: Kind) -> None:
    source = "def grade(sample, item):\n    return len(item['missing'])\n"
    outcome = run_in(kind, source, SAMPLE, ITEM, LIMITS)
    assert outcome.score is None and outcome.error is not None
    lines = outcome.error.splitlines()
    assert lines[1] == '  File "grader.py", line 2, in grade'
    assert lines[2].strip() == "return len(item['missing'])"
    assert lines[-1] == "KeyError: 'missing'"
    assert "core" not in outcome.error and "<string>" not in outcome.error


def test_standard_library_is_complete(kind: Kind) -> None:
    body = (
        "import importlib; missing = []\n"
        "for name in item['names']:\n"
        " try: importlib.import_module(name)\n"
        " except ImportError as error: missing.append(f'{name}: {error}')\n"
        "assert not missing, missing\n"
        "return len(item['names'])"
    )
    # what a grader would use and this machine has, with libraries beside the interpreter
    names = ["json", "re", "difflib", "decimal", "hashlib", "ssl", "sqlite3", "bz2", "lzma", "zlib"]
    names += ["ctypes", "uuid", "zoneinfo", "unicodedata", "xml.etree.ElementTree", "statistics"]
    names += ["asyncio", "email", "csv", "fractions", "datetime", "concurrent.futures", "typing"]
    present = [name for name in names if importlib.util.find_spec(name)]
    outcome = run_in(kind, with_grade(body), {}, {"names": present}, LIMITS)
    assert outcome == PythonOutcome(score=len(present))


def test_grader_may_use_files_threads_and_alarms(kind: Kind, host: Host) -> None:
    body = (
        "import sqlite3, tempfile, concurrent.futures\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        " base = sqlite3.connect(folder + '/base'); base.execute('create table t (n)')\n"
        " base.execute('insert into t values (3)'); base.commit()\n"
        " [found] = base.execute('select n from t').fetchone()\n"
        "with concurrent.futures.ThreadPoolExecutor(4) as pool:\n"
        " found += sum(pool.map(len, ['a', 'bb']))\n"
        "rung = []\n"
        "signal.signal(signal.SIGALRM, lambda *_: rung.append(1))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.1)\n"
        "return found + len(rung)"
    )
    assert score(kind, body) == 7


@pytest.mark.skipif(not importlib.util.find_spec("rapidfuzz"), reason="rapidfuzz is not installed")
def test_rapidfuzz_may_be_imported(kind: Kind) -> None:
    assert score(kind, "from rapidfuzz import fuzz; return fuzz.ratio('abcd', 'abce')") == 75


def test_calls_share_nothing(kind: Kind, host: Host) -> None:
    body = "open('/tmp/left', 'x').close(); import json; json.left = 1; return 1"
    assert score(kind, body) == score(kind, body) == 1


def test_many_at_once_get_their_own_scores(kind: Kind, host: Host) -> None:
    """Half of them write a foreign score wherever they can, before they return."""
    body = (
        "import struct\n"
        "for number in range(64) if item['number'] % 2 else ():\n"
        " try: os.write(number, b'S' + struct.pack('<d', 666))\n"
        " except OSError: pass\n"
        "time.sleep(0.05); return item['number']"
    )

    def one(number: int) -> PythonOutcome:
        return run_in(kind, with_grade(body), SAMPLE, {"number": number}, LIMITS)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(one, range(24)))
    for number, outcome in enumerate(outcomes):
        if number % 2:
            assert outcome.score in (None, 666)  # its own score it may spoil
        else:
            assert outcome == PythonOutcome(score=number)


def test_threads_of_one_do_not_count_for_others(kind: Kind, host: Host) -> None:
    body = (
        "for _ in range(8): threading.Thread(target=time.sleep, args=(0.3,)).start()\n"
        "time.sleep(0.2); return 1"
    )
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: score(kind, body), range(8))) == {1.0}


def test_run_grader_chooses_the_sandbox_of_this_machine() -> None:
    if availability().kind is None:
        pytest.skip(availability().reason)
    begun = time.monotonic()
    source = "def grade(sample, item):\n return sample['output_text'] == item['answer']"
    assert run.run_grader(source, {"output_text": "a"}, {"answer": "a"}) == PythonOutcome(score=1)
    assert run.run_grader(source, {"output_text": "a"}, {"answer": "b"}) == PythonOutcome(score=0)
    assert time.monotonic() - begun < 10


def test_kernel_would_kill_a_grader_before_the_service(kind: Kind) -> None:
    with SandboxedProcess(kind, LIMITS) as process:
        assert Path(f"/proc/{process._inside}/oom_score_adj").read_text() == "1000\n"
