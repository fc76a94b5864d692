"""What becomes of blobs when the rows that were to name them are not written."""

from pathlib import Path

import pytest

from core.errors import Conflict, StaleClaim, Unavailable
from core.storage.blobs import BlobStore
from core.storage.compensation import delete_on_failure
from core.storage.open import open_store

KEYS = ("files/first", "files/second")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    store = open_store(tmp_path)
    for key in KEYS:
        store.write(key, [b"content"])
    return store


def test_blobs_stay_when_the_block_ends(store: BlobStore) -> None:
    with delete_on_failure(store, *KEYS):
        pass
    assert all(store.exists(key) for key in KEYS)


@pytest.mark.parametrize("error", [StaleClaim("lost"), KeyboardInterrupt(), ValueError("a bug")])
def test_blobs_go_when_the_block_raises(store: BlobStore, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, delete_on_failure(store, *KEYS):
        raise error
    assert caught.value is error
    assert not any(store.exists(key) for key in KEYS)


def test_blobs_that_may_be_recorded_stay(store: BlobStore) -> None:
    def is_open(error: BaseException) -> bool:
        return isinstance(error, Conflict)

    with pytest.raises(Conflict), delete_on_failure(store, KEYS[0], unless=is_open):
        raise Conflict("the commit had no answer")
    with pytest.raises(StaleClaim), delete_on_failure(store, KEYS[1], unless=is_open):
        raise StaleClaim("rolled back")
    assert [store.exists(key) for key in KEYS] == [True, False]


def test_storage_that_is_unavailable_hides_no_error(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(key: str) -> None:
        raise Unavailable("storage is unavailable")

    monkeypatch.setattr(store, "delete", fail)
    with pytest.raises(StaleClaim), delete_on_failure(store, *KEYS):
        raise StaleClaim("lost")
    assert all(key in caplog.text for key in KEYS)
