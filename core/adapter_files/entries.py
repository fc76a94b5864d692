"""The rules for the entries of an archive, whatever its format, and how one is written out."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from core.adapter_files.content import HEAD_BYTES, refuse_code
from core.adapter_files.limits import MAX_BYTES, MAX_DEPTH, MAX_FILES, MAX_NAME_LENGTH
from core.adapter_files.refusal import RefusedAdapter, shown


class Entries:
    """Checks names, number and sizes of the entries of one archive, and writes them to a folder."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._names: dict[str, str] = {}
        self._folders: set[str] = set()
        self._bytes = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names.values())

    def admit(self, name: str, size: int) -> str:
        """Return the safe name of a file of `size` bytes; RefusedAdapter if it must not be written.

        Called once for every file, before it is written.
        """
        safe = safe_name(name)
        key = safe.casefold()
        if key in self._names or key in self._folders:
            raise RefusedAdapter(f"The archive has two entries named {shown(name)}.")
        parents = [str(parent) for parent in PurePosixPath(key).parents if str(parent) != "."]
        if any(parent in self._names for parent in parents):
            raise RefusedAdapter(f"The archive has a file and a folder named {shown(name)}.")
        self._folders.update(parents)
        self._names[key] = safe
        if len(self._names) > MAX_FILES:
            raise RefusedAdapter(f"The archive has more than {MAX_FILES} files.")
        self._bytes += size
        if size < 0 or self._bytes > self._max_bytes:
            raise RefusedAdapter(
                f"The files of the archive have more than {self._max_bytes:,} bytes together."
            )
        return safe

    def write(self, safe: str, size: int, chunks: Iterator[bytes]) -> None:
        """Write an admitted file; RefusedAdapter if it is code, or has another size than stated."""
        target = self._folder / safe
        target.parent.mkdir(parents=True, exist_ok=True)
        head, length = b"", 0
        with target.open("xb") as out:
            for chunk in chunks:
                length += len(chunk)
                if length > size:
                    break
                if len(head) < HEAD_BYTES:
                    head += chunk[: HEAD_BYTES - len(head)]
                out.write(chunk)
        if length != size:
            raise RefusedAdapter(
                f"{shown(safe)} has another size than the archive states ({size:,} bytes)."
            )
        refuse_code(head, size, safe)


def safe_name(name: str) -> str:
    """Return the relative path of an entry, without a leading `./`; RefusedAdapter if unsafe."""
    plain = name.removeprefix("./")
    path = PurePosixPath(plain)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise RefusedAdapter(f"The name {shown(name)} in the archive is not UTF-8.") from None
    if not plain.isprintable() or set(plain) & set('\\:*?"<>|'):
        raise RefusedAdapter(f"The archive has a file with an unsafe name: {shown(name)}.")
    if path.is_absolute() or ".." in path.parts or path.as_posix() != plain or plain == ".":
        raise RefusedAdapter(f"The archive has a file outside its folder: {shown(name)}.")
    if len(plain) > MAX_NAME_LENGTH or len(path.parts) > MAX_DEPTH + 1:
        raise RefusedAdapter(
            f"The name {shown(name)} in the archive is longer than {MAX_NAME_LENGTH} characters "
            f"or {MAX_DEPTH} folders."
        )
    return plain
