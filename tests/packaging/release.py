"""What a release must be: archives with every file, and one version in three places.

    python -m tests.packaging.release v0.1.0 dist > notes.md

fails with the difference, or prints the notes of the release. Standard library only.
"""

import re
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "cli", "core", "migrations", "worker")
SECTION = re.compile(
    r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?\n(.*?)(?=^## |^\[|\Z)", re.M | re.S
)


def source_files() -> set[str]:
    """Return every file of the packages, data included, relative to the project."""
    return {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def missing(archive: Path) -> set[str]:
    """Return the source files that a wheel or a source archive does not contain."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return source_files() - set(wheel.namelist())
    with tarfile.open(archive) as source:
        return source_files() - {name.partition("/")[2] for name in source.getnames()}


def version() -> str:
    """Return the version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def sections() -> dict[str, tuple[str | None, str]]:
    """Return the date and the text of each version in CHANGELOG.md, newest first."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    return {name: (date or None, notes.strip()) for name, date, notes in SECTION.findall(text)}


def problems(tag: str, archives: Iterable[Path]) -> list[str]:
    """Return what keeps the tag from being released with these archives."""
    found = []
    if tag != f"v{version()}":
        found.append(f"The tag is {tag}, but pyproject.toml has version {version()}.")
    date, notes = sections().get(tag.removeprefix("v"), (None, ""))
    if date is None or not notes:
        found.append(f"CHANGELOG.md has no dated section with notes for {tag.removeprefix('v')}.")
    names = {"wheel": "*.whl", "source archive": "*.tar.gz"}
    archives = list(archives)
    for name, pattern in names.items():
        of_kind = [archive for archive in archives if archive.match(pattern)]
        if len(of_kind) != 1:
            found.append(f"There must be one {name}, not {len(of_kind)}.")
        for archive in of_kind:
            if f"tunesmith-{version()}" not in archive.name:
                found.append(f"{archive.name} is not of version {version()}.")
            if lacks := missing(archive):
                found.append(f"{archive.name} lacks {', '.join(sorted(lacks))}.")
    return found


def main() -> int:
    tag, folder = sys.argv[1:]
    if found := problems(tag, sorted(Path(folder).iterdir())):
        print("\n".join(found), file=sys.stderr)
        return 1
    print(sections()[tag.removeprefix("v")][1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
