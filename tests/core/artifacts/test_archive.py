import pickle
import random
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.artifacts.archive import MAX_FILES, pack, pack_state, unpack, unpack_state
from core.artifacts.manifest import (
    ADAPTER_FILE,
    MANIFEST_FILE,
    sha256_of,
    verify,
    write_manifest,
)
from core.errors import TunesmithError
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec

BASE = BaseModelSpec(id="tiny-llama", source="someone/tiny-llama")


def refused(archive: Path, folder: Path, **limits: int) -> str:
    """Assert that the archive is refused and that nothing at all was left by the attempt."""
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(TunesmithError) as caught:
        unpack(archive, folder, **limits)
    assert caught.value.code == "artifact_corrupt"
    assert sorted(folder.parent.rglob("*")) == before
    return caught.value.message


def rewritten(
    source: Path, target: Path, change: Callable[[zipfile.ZipInfo, bytes], tuple[object, bytes]]
) -> Path:
    """A copy of an archive with every entry passed through `change`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            changed, content = change(entry, old.read(entry))
            new.writestr(changed, content)  # type: ignore[arg-type]
    return target


@pytest.fixture(scope="module")
def archive(shared_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "bundle.zip"
    pack(shared_bundle, path)
    return path


def test_what_was_packed_comes_out(shared_bundle: Path, archive: Path, tmp_path: Path) -> None:
    unpack(archive, tmp_path / "out")
    assert verify(tmp_path / "out") == verify(shared_bundle)
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_equal_bundles_give_equal_archives(
    shared_bundle: Path, archive: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(shared_bundle, tmp_path / "copy", copy_function=shutil.copy))
    assert (
        pack(copy, tmp_path / "copy.zip") == sha256_of(archive) == sha256_of(tmp_path / "copy.zip")
    )


def test_a_damaged_bundle_is_not_packed(shared_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(shared_bundle, tmp_path / "bundle"))
    (bundle / "metrics.csv").write_text("step\n")
    with pytest.raises(TunesmithError, match=r"metrics\.csv"):
        pack(bundle, tmp_path / "bundle.zip")
    assert not (tmp_path / "bundle.zip").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "a/../../evil.json",
        "/tmp/evil.json",
        "//evil.json",
        "./evil.json",
        "a//evil.json",
        "..\\evil.json",
        "C:evil.json",
        "evil\n.json",
        "evil\u202e.json",
        "README.MD",
        "a" * 300 + ".json",
        "folder/",
        "evil.py",
        "evil.bin",
        "evil.pkl",
        "evil.json.so",
        "model.pt",
        "evil",
    ],
)
def test_unsafe_names_are_refused(archive: Path, tmp_path: Path, name: str) -> None:
    evil = tmp_path / "evil.zip"
    shutil.copy(archive, evil)
    with zipfile.ZipFile(evil, "a") as out:
        out.writestr(name, b"{}")
    refused(evil, tmp_path / "inside" / "out")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_links_and_devices_are_refused(archive: Path, tmp_path: Path, kind: int) -> None:
    evil = tmp_path / "evil.zip"
    shutil.copy(archive, evil)
    entry = zipfile.ZipInfo("evil.json")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(evil, "a") as out:
        out.writestr(entry, "/etc/passwd")
    assert "regular file" in refused(evil, tmp_path / "inside" / "out")


def test_two_files_of_the_same_name_are_rejected(archive: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.zip"
    shutil.copy(archive, evil)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(evil, "a") as out:
        out.writestr("README.md", b"another")
    assert "the same name" in refused(evil, tmp_path / "inside" / "out")


def test_too_many_files_are_refused(archive: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.zip"
    shutil.copy(archive, evil)
    with zipfile.ZipFile(evil, "a") as out:
        for number in range(MAX_FILES):
            out.writestr(f"{number}.txt", b"")
    assert "at most" in refused(evil, tmp_path / "inside" / "out")


def test_too_many_bytes_are_refused(archive: Path, tmp_path: Path) -> None:
    assert "bytes" in refused(archive, tmp_path / "inside" / "out", max_bytes=1000)


def test_a_compressed_bomb_is_refused(archive: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.zip"
    shutil.copy(archive, evil)
    with zipfile.ZipFile(evil, "a") as out:
        out.writestr("bomb.txt", b"\0" * 20_000_000, compress_type=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(evil, tmp_path / "inside" / "out")


def test_a_file_that_is_also_a_folder_is_refused(archive: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.zip"
    shutil.copy(archive, evil)
    with zipfile.ZipFile(evil, "a") as out:
        out.writestr("README.md/inner.json", b"{}")
    refused(evil, tmp_path / "inside" / "out")


def test_a_pickle_under_the_name_of_weights_is_refused(shared_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(shared_bundle, tmp_path / "bundle"))
    (bundle / ADAPTER_FILE).write_bytes(pickle.dumps({"weights": [1.0]}))
    (bundle / MANIFEST_FILE).unlink()
    write_manifest(bundle, JobSpec(base=BASE, seed=0))
    pack(bundle, tmp_path / "evil.zip")
    assert "safetensors" in refused(tmp_path / "evil.zip", tmp_path / "inside" / "out")


def test_changed_content_is_refused(archive: Path, tmp_path: Path) -> None:
    evil = rewritten(
        archive,
        tmp_path / "evil.zip",
        lambda entry, content: (
            entry,
            b"{{ evil }}" if entry.filename == "chat_template.jinja" else content,
        ),
    )
    assert "chat_template.jinja" in refused(evil, tmp_path / "inside" / "out")


@pytest.mark.parametrize("length", [0, 1, 21, 22, 1000])
def test_a_cut_off_archive_is_refused(archive: Path, tmp_path: Path, length: int) -> None:
    (tmp_path / "evil.zip").write_bytes(archive.read_bytes()[:length])
    refused(tmp_path / "evil.zip", tmp_path / "inside" / "out")


def test_any_damage_to_the_archive_is_refused_or_harmless(archive: Path, tmp_path: Path) -> None:
    seed = 3
    draw = random.Random(seed)
    original = archive.read_bytes()
    expected = verify_of(archive, tmp_path / "expected")
    refusals = 0
    for _ in range(150):
        damaged = bytearray(original)
        # Half of the damage goes into the directory at the end, where zipfile does its parsing.
        start = len(original) - 1200 if draw.random() < 0.5 else 0
        damaged[draw.randrange(start, len(original))] = draw.randrange(256)
        (tmp_path / "evil.zip").write_bytes(damaged)
        try:
            assert verify_of(tmp_path / "evil.zip", tmp_path / "out") == expected, f"seed {seed}"
        except TunesmithError as error:
            assert error.code == "artifact_corrupt"
            refusals += 1
    assert refusals > 75


def verify_of(archive: Path, folder: Path) -> object:
    unpack(archive, folder)
    return verify(folder)


def test_resume_state_comes_out_as_it_went_in(tmp_path: Path) -> None:
    state, archive = tmp_path / "state", tmp_path / "state.zip"
    (state / "deep").mkdir(parents=True)
    (state / "state.json").write_text('{"step": 3}')
    (state / "deep" / "more.txt").write_text("more")
    save_file({"a": np.ones(3, np.float32)}, state / "weights.safetensors")
    digest = pack_state(state, archive)
    assert digest == sha256_of(archive)
    unpack_state(archive, tmp_path / "out")
    files = [path.relative_to(state) for path in state.rglob("*") if path.is_file()]
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (state / file).read_bytes()


def test_resume_state_is_unpacked_as_warily_as_a_bundle(tmp_path: Path) -> None:
    archive = tmp_path / "state.zip"
    for name in ("../outside.json", "weights.pt", "weights.safetensors"):
        with zipfile.ZipFile(archive, "w") as out:
            out.writestr(name, b"no such thing")
        with pytest.raises(TunesmithError) as caught:
            unpack_state(archive, tmp_path / "out")
        assert caught.value.code == "artifact_corrupt"
    assert list(tmp_path.iterdir()) == [archive]
