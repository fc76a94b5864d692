"""Archives are fetched once, checked, and never half there."""

import shutil
import threading
import zipfile
from pathlib import Path

import pytest

from core.artifacts.manifest import verify
from core.engine.adapters import AdapterFiles
from core.errors import InvalidRequest, NotFound, Unavailable
from core.spec.bundle import BundleRef


class CountingStore:
    """The real store, with a count of fetches."""

    def __init__(self, store) -> None:
        self.store = store
        self.fetches = 0

    def fetch(self, key: str, target: Path) -> None:
        self.fetches += 1
        self.store.fetch(key, target)


@pytest.fixture
def counting(store) -> CountingStore:
    return CountingStore(store)


@pytest.fixture
def fresh_files(counting, tmp_path) -> AdapterFiles:
    return AdapterFiles(counting, tmp_path)


def test_an_archive_is_unpacked_whole_under_its_hash(fresh_files, adapters, tmp_path):
    folder = fresh_files.ensure(adapters[0])
    assert folder == tmp_path / adapters[0].sha256
    verify(folder)
    assert list(tmp_path.iterdir()) == [folder], "a working folder was left behind"


def test_an_archive_is_fetched_once_however_many_ask(fresh_files, adapters, counting):
    threads = [threading.Thread(target=fresh_files.ensure, args=(adapters[0],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counting.fetches == 1
    assert fresh_files.folder(adapters[0].sha256).is_dir()


def test_a_slow_archive_holds_up_no_other(fresh_files, adapters, counting):
    original, may_go_on = counting.fetch, threading.Event()

    def fetch(key: str, target: Path) -> None:
        assert key != adapters[0].key or may_go_on.wait(60)
        original(key, target)

    counting.fetch = fetch
    slow = threading.Thread(target=fresh_files.ensure, args=(adapters[0],))
    slow.start()
    assert fresh_files.ensure(adapters[1]).is_dir()
    assert not fresh_files.folder(adapters[0].sha256).exists()
    may_go_on.set()
    slow.join()
    assert fresh_files.folder(adapters[0].sha256).is_dir()


def test_two_engines_may_share_the_folder(fresh_files, adapters, counting, tmp_path):
    """The other one publishes the same bundle while this one still unpacks it."""
    other = AdapterFiles(counting.store, tmp_path)
    original = counting.fetch

    def fetch(key: str, target: Path) -> None:
        original(key, target)
        other.ensure(adapters[0])

    counting.fetch = fetch
    verify(fresh_files.ensure(adapters[0]))


def test_a_missing_archive_is_not_found(fresh_files, tmp_path):
    with pytest.raises(NotFound) as caught:
        fresh_files.ensure(BundleRef(key="bundles/nobody/final.zip", sha256="0" * 64))
    assert caught.value.code == "adapter_not_found"
    assert list(tmp_path.iterdir()) == []


def test_an_archive_with_another_hash_is_refused(fresh_files, adapters, tmp_path):
    wrong = BundleRef(key=adapters[0].key, sha256=adapters[1].sha256)
    with pytest.raises(Unavailable, match="SHA-256") as caught:
        fresh_files.ensure(wrong)
    assert caught.value.code == "adapter_corrupt"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["not a zip", "changed file"])
def test_a_corrupt_archive_is_refused_though_its_hash_is_right(
    damage, fresh_files, adapter_folders, store, tmp_path_factory, tmp_path
):
    archive = tmp_path_factory.mktemp("damaged") / "bundle.zip"
    if damage == "not a zip":
        archive.write_bytes(b"no bundle at all")
    else:
        folder = tmp_path_factory.mktemp("damaged") / "bundle"
        shutil.copytree(adapter_folders[0], folder)
        (folder / "adapter_config.json").write_text("{}")
        with zipfile.ZipFile(archive, "w") as out:
            for path in folder.iterdir():
                out.write(path, path.name)
    key = f"bundles/damaged/{damage.replace(' ', '-')}.zip"
    blob = store.write_file(key, archive)
    with pytest.raises(Unavailable) as caught:
        fresh_files.ensure(BundleRef(key=key, sha256=blob.sha256))
    assert caught.value.code == "adapter_corrupt"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sha256", ["../../etc", "A" * 64, "0" * 63, ""])
def test_a_hash_that_is_none_never_becomes_a_path(sha256, fresh_files):
    with pytest.raises(InvalidRequest, match="SHA-256"):
        fresh_files.ensure(BundleRef(key="bundles/x/final.zip", sha256=sha256))
