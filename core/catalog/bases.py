"""The base models that jobs may ask for: the shipped ones, then those of the user's file.

`bases.toml` explains the fields. Loading looks at no model: the folders may be on the workers'
machines only.
"""

import re
import tomllib
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from core.errors import NotFound
from core.spec.base import Spec
from core.spec.run import BaseModelSpec

_SHIPPED_FILE = Path(__file__).with_name("bases.toml")
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE_PREFIX = "package:"

_NAME_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_ID = re.compile(rf"{_NAME_PART}(/{_NAME_PART})?", re.ASCII)

# No colon, because tuned models are called ft:<base>:<project>:<suffix>:<id>.
Name = Annotated[str, Field(pattern=rf"^{_NAME_PART}(/{_NAME_PART})*$", max_length=128)]


class BadCatalog(ValueError):
    """A catalog file cannot be used; the message names the file, the entry and the cure."""


def _unix_seconds(value: object) -> object:
    if isinstance(value, date):
        return int(datetime.combine(value, time(), UTC).timestamp())
    return value


class CatalogEntry(Spec):
    """A base model as the catalog knows it."""

    id: Name
    source: str = Field(min_length=1, description="absolute folder, or a Hugging Face id")
    revision: str | None = Field(None, min_length=1, description="of a Hugging Face id")
    aliases: tuple[Name, ...] = ()
    owned_by: str = "system"
    created: Annotated[int, BeforeValidator(_unix_seconds)] = Field(
        0, ge=0, description="unix seconds; in the file a day, such as 2024-09-25"
    )

    @property
    def spec(self) -> BaseModelSpec:
        return BaseModelSpec(id=self.id, source=self.source, revision=self.revision)


class Catalog:
    """Base models by id and alias."""

    def __init__(self, entries: Iterable[CatalogEntry]) -> None:
        """Raises BadCatalog when two entries share a name."""
        self._entries = tuple(entries)
        self._by_name: dict[str, CatalogEntry] = {}
        for entry in self._entries:
            for name in (entry.id, *entry.aliases):
                other = self._by_name.setdefault(name, entry)
                if other is not entry or name in entry.aliases and name == entry.id:
                    raise BadCatalog(
                        f"the name {name!r} of {entry.id!r} already belongs to {other.id!r}; "
                        "every id and alias must be given once"
                    )

    @classmethod
    def load(cls, path: Path | None = None) -> "Catalog":
        """Return the shipped entries, changed and extended by the user's file when there is one.

        Raises BadCatalog for a file that is not TOML, wrong fields and repeated names.
        """
        tables = _read_tables(_SHIPPED_FILE)
        files = dict.fromkeys(tables, _SHIPPED_FILE)
        if path is not None:
            for id_, table in _read_tables(path).items():
                tables[id_] = tables.get(id_, {}) | table
                files[id_] = path if "source" in table else files.get(id_, path)
        return cls(_entry(table, files[id_]) for id_, table in tables.items())

    def bases(self) -> tuple[CatalogEntry, ...]:
        """Return all entries, the shipped ones first."""
        return self._entries

    def resolve(self, name: str) -> BaseModelSpec:
        """Return the base with this id or alias; NotFound names the nearest ones."""
        entry = self._by_name.get(name)
        if entry is None:
            near = get_close_matches(name[:128], self._by_name, n=3, cutoff=0.5)
            hint = "Did you mean" if near else "Known are"
            names = ", ".join(near or [base.id for base in self._entries])
            raise NotFound(
                f"No base model is called {name[:128]!r}. {hint}: {names}. Further ones are added "
                "in the catalog file.",
                param="model",
                code="model_not_found",
            )
        return entry.spec
