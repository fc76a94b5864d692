"""Hostile adapters: each is refused with its reason, within time and memory, and leaves nothing."""

import io
import json
import pickle
import stat
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from core.adapter_files.bounded import check_adapter_in_child
from core.adapter_files.check import check
from core.datasets.bounded import Limits
from core.spec.adapter_file import AdapterReport
from tests.core.adapter_files.archives import (
    LAYER,
    SHAPES,
    config,
    encrypted_zip,
    folder,
    latin_name_zip,
    member,
    overlapping_zip,
    tarred,
    weights,
    zip_with_mode,
    zipped,
)

LIMITS = Limits(memory_bytes=256 << 20, timeout_seconds=20)
PICKLE = pickle.dumps({"weight": [1.0]})
TORCH_FILE = zipped({"archive/data.pkl": PICKLE, "archive/version": b"3"})
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MANY = {f"f{number}.txt": b"x" for number in range(300)}
ZEROS = bytes(30 << 20)
GAP = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}
OVERLAP = {
    "x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "y": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
}
LONG = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4096]}}
TWICE = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{}}'


def shape(*sizes: object, end: int = 16) -> dict[str, bytes]:
    """Return an adapter with one tensor that claims to have this shape."""
    header = {"x": {"dtype": "F32", "shape": list(sizes), "data_offsets": [0, end]}}
    return folder(**{WEIGHTS: weights(header=header, data=bytes(16))})


def header(text: object, data: bytes = bytes(16)) -> bytes:
    lying = weights(header=text, data=data)  # type: ignore[arg-type]
    return zipped(folder(**{WEIGHTS: lying}), zipfile.ZIP_STORED)


HOSTILE: dict[str, tuple[bytes, str]] = {
    "pickle as weights": (zipped({CONFIG: config(), "adapter_model.bin": PICKLE}), "is a pickle"),
    "pickle renamed": (zipped(folder(**{WEIGHTS: PICKLE})), "is a pickle"),
    "torch file renamed": (zipped(folder(**{WEIGHTS: TORCH_FILE})), "archive inside the archive"),
    "pickle of protocol 0": (
        zipped(folder(**{"args.txt": b"cos\nsystem\n(S'true'\ntR."})),
        "is a pickle",
    ),
    "pickle beside": (zipped(folder(**{"training_args.bin": PICKLE})), "training_args.bin"),
    "traversal": (zipped(folder(**{"../../evil.txt": b"x"})), "outside its folder"),
    "traversal in tar": (tarred(folder(**{"a/../../evil.txt": b"x"})), "outside its folder"),
    "absolute path": (zipped(folder(**{"/etc/evil.txt": b"x"})), "outside its folder"),
    "absolute path in tar": (tarred(folder(**{"/etc/evil.txt": b"x"})), "outside its folder"),
    "backslashes": (zipped(folder(**{"..\\evil.txt": b"x"})), "unsafe name"),
    "symlink": (zip_with_mode("link.json", stat.S_IFLNK | 0o777), "a link or a device"),
    "symlink in tar": (
        tarred({}, member(CONFIG, tarfile.SYMTYPE, "/etc/passwd")),
        "a link, a device",
    ),
    "hard link": (tarred(folder(), member("x.json", tarfile.LNKTYPE, CONFIG)), "a link, a device"),
    "device node": (tarred(folder(), member("null", tarfile.CHRTYPE)), "a link, a device"),
    "pipe": (tarred(folder(), member("pipe", tarfile.FIFOTYPE)), "a link, a device"),
    "zip bomb by ratio": (zipped(folder(**{"zeros.txt": ZEROS})), "would grow"),
    "gzip bomb": (tarred(folder(**{"zeros.txt": ZEROS})), "times its size"),
    "nested bomb": (zipped(folder(**{"inner.zip": zipped({"z.txt": ZEROS})})), "inside the"),
    "overlapping entries": (overlapping_zip(), "overlap"),
    "many files": (zipped(MANY), "more than 256 files"),
    "deep folders": (zipped(folder(**{"a/" * 20 + "x.txt": b"x"})), "folders"),
    "long name": (zipped(folder(**{"a" * 300 + ".txt": b"x"})), "longer than"),
    "duplicate names": (
        tarred({CONFIG: config()}, member("x", tarfile.REGTYPE), member("X", tarfile.REGTYPE)),
        "two entries",
    ),
    "file and folder": (zipped(folder(**{f"{CONFIG}/x.txt": b"x"})), "a file and a folder"),
    "encrypted": (encrypted_zip(), "encrypted"),
    "name not UTF-8": (latin_name_zip(), "not marked as UTF-8"),
    "truncated": (zipped(folder())[:-40], "cannot be read"),
    "no adapter": (zipped({"readme.txt": b"hello"}), "no adapter_config.json"),
    "two adapters": (
        zipped({f"{a}/{name}": data for a in "ab" for name, data in folder().items()}),
        "several adapters",
    ),
    "giant header": (header(b'{"x":"' + b"a" * (17 << 20) + b'"}'), "may be"),
    "header length lies": (
        zipped(folder(**{WEIGHTS: weights(length=2**33)})),
        "by its own account",
    ),
    "header beyond the file": (
        zipped(folder(**{WEIGHTS: struct.pack("<Q", 50) + b"{}" + bytes(8)})),
        "by its own account",
    ),
    "header is no JSON": (header(b"{not json}"), "not JSON"),
    "tensor twice": (header(TWICE, bytes(4)), "twice"),
    "overlapping tensors": (header(OVERLAP, bytes(12)), "overlap"),
    "gap between tensors": (header(GAP, bytes(16)), "gap"),
    "bytes beyond the shape": (header(LONG, bytes(4096)), "does not need"),
    "data beyond the file": (
        header({"x": {"dtype": "F32", "shape": [1024], "data_offsets": [0, 4096]}}),
        "its data 16",
    ),
    "negative shape": (zipped(shape(-2, -2)), "has the shape"),
    "huge shape": (zipped(shape(2**40, 2**40)), "does not need"),
    "empty shape": (zipped(shape(0, end=0)), "ZeRO-3"),
    "fractional shape": (zipped(shape(1.5)), "has the shape"),
    "integers": (header({"x": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}}), "dtype"),
    "rank of a billion": (zipped(folder(**{CONFIG: config(r=10**9)})), "r has the value"),
    "rank is a text": (zipped(folder(**{CONFIG: config(r="16")})), "r has the value"),
    "rank is true": (zipped(folder(**{CONFIG: config(r=True)})), "r has the value"),
    "alpha is NaN": (
        zipped(folder(**{CONFIG: config().replace(b": 4,", b": NaN,")})),
        "NaN is not JSON",
    ),
    "auto_map": (zipped(folder(**{CONFIG: config(auto_map={"AutoModel": "evil.M"})})), "code"),
    "auto_mapping": (
        zipped(folder(**{CONFIG: config(auto_mapping={"parent_library": "os"})})),
        "auto_mapping",
    ),
    "unknown key": (zipped(folder(**{CONFIG: config(rnak=4)})), "rnak is unknown"),
    "key twice": (
        zipped(folder(**{CONFIG: config()[:-1] + b', "r": 3}'})),
        "twice",
    ),
    "pattern that never ends": (
        zipped(folder(**{CONFIG: config(rank_pattern={"(a+)+$": 2})})),
        "rank_pattern",
    ),
    "other method": (zipped(folder(**{CONFIG: config(peft_type="XLORA")})), "peft_type"),
    "other task": (zipped(folder(**{CONFIG: config(task_type="TOKEN_CLS")})), "task_type"),
    "PiSSA": (zipped(folder(**{CONFIG: config(init_lora_weights="pissa")})), "changed before"),
    "config is a list": (zipped(folder(**{CONFIG: b"[1]"})), "not a JSON object"),
    "deep config": (zipped(folder(**{CONFIG: b"[" * 5000 + b"]" * 5000})), "nested"),
    "program": (zipped(folder(**{"run.json": b"\x7fELF" + bytes(60)})), "a program"),
}


def checked(path: Path, content: bytes) -> AdapterReport:
    path.write_bytes(content)
    return check(path, path.name)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_adapter_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[name]
    report = checked(tmp_path / "upload.zip", content)
    assert report.problem is not None and reason in report.problem, report
    assert report.holds is None and not report.usable
    assert [path.name for path in tmp_path.iterdir()] == ["upload.zip"], "something was left"
    assert not (tmp_path.parent / "evil.txt").exists()


@pytest.mark.parametrize(
    "content",
    [
        zipped(folder()),
        zipped(folder(), zipfile.ZIP_STORED),
        tarred(folder()),
        tarred(folder(), mode="w"),
        zipped({f"./adapter/{name}": data for name, data in folder().items()}),
        zipped(folder(**{"README.md": b"# \xc3\xa4", "tokenizer.model": b"\n\x0b\n\x00\x01"})),
        zipped(folder(**{CONFIG: config(new_option=None, other_option=False)})),
        zipped(folder(**{"gr\u00fcn.txt": b"text"})),
    ],
    ids=["zip", "stored", "tar.gz", "tar", "in a folder", "more files", "null keys", "UTF-8"],
)
def test_harmless_archive_is_described(content: bytes, tmp_path: Path) -> None:
    report = checked(tmp_path / "upload", content)
    assert report.problem is None and report.holds == "archive"
    assert (report.method, report.task_type, report.base_model_name) == (
        "LORA",
        "CAUSAL_LM",
        "tunesmith/tiny",
    )
    assert (report.tensors, report.parameters) == (2, 32)


@pytest.mark.parametrize("length", range(0x280, 0x2000, 0x100))
def test_header_whose_length_looks_like_a_pickle_is_read(length: int, tmp_path: Path) -> None:
    padded = json.loads(weights()[8:-128])
    text = json.dumps(padded).encode()
    content = weights(header=text.ljust(length))
    assert content[:1] == b"\x80"
    assert checked(tmp_path / "upload", zipped(folder(**{WEIGHTS: content}))).usable


def test_files_of_a_folder_are_told_apart_by_content(tmp_path: Path) -> None:
    assert checked(tmp_path / "a.json", weights()).holds == "weights"
    assert checked(tmp_path / "adapter_model.safetensors", config()).holds == "config"
    assert checked(tmp_path / "tokenizer.json", b'{"version": "1.0"}').holds == "other"
    assert "pickle" in (checked(tmp_path / "adapter_config.json", PICKLE).problem or "")
    assert "no text" in (checked(tmp_path / "a.json", bytes(range(256)) * 4).problem or "")


def test_child_ends_what_takes_too_much_memory_or_time(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar"
    entry = tarfile.TarInfo("x.txt")
    entry.pax_headers = {"comment": "a" * (64 << 20)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(entry, io.BytesIO())
    path.write_bytes(out.getvalue())
    began = time.monotonic()
    report = check_adapter_in_child(path, "bomb.tar", LIMITS)
    assert report.problem is not None and time.monotonic() - began < 20
    deep = json.dumps({f"t{number}": SHAPES for number in range(40_000)}).encode()
    path.write_bytes(zipped(folder(**{WEIGHTS: weights(header=deep)})))
    report = check_adapter_in_child(path, "bomb.zip", LIMITS)
    assert report.problem is not None and "tensors" in report.problem
    path.write_bytes(zipped(folder()))
    assert check_adapter_in_child(path, "fine.zip", LIMITS).usable
    assert LAYER in next(iter(SHAPES))
