"""The base models for jobs: the shipped ones, then those of the user's file.

`bases.toml` explains the fields. Loading the catalog reads no model, because the folders may exist
only on the workers' machines.
"""

import re
import tomllib
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError

from core.errors import NotFound
from core.spec.base import Spec
from core.spec.base_model import BaseModelSpec, Quantization
from core.spec.names import Aliased
from core.spec.nearest import nearest

_SHIPPED_FILE = Path(__file__).with_name("bases.toml")
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE_PREFIX = "package:"

_NAME_PART = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB_ID = re.compile(rf"{_NAME_PART}(/{_NAME_PART})?", re.ASCII)

# No colon, because tuned models are called ft:<name of the base>:<project>:<suffix>:<id>.
Name = Annotated[str, Field(pattern=rf"^{_NAME_PART}(/{_NAME_PART})*$", max_length=128)]


class BadCatalog(ValueError):
    """A catalog file cannot be used; the message names the file, the entry and the fix."""


def _unix_seconds(value: object) -> object:
    if isinstance(value, date):
        return int(datetime.combine(value, time(), UTC).timestamp())
    return value


class CatalogEntry(Aliased, Spec):
    """A base model in the catalog."""

    id: Name
    source: str = Field(min_length=1, description="absolute folder, or a Hugging Face id")
    revision: str | None = Field(None, min_length=1, description="of a Hugging Face id")
    quantization: Quantization | None = Field(
        None,
        description="in memory, for training and serving; None: that of the source",
        validation_alias=AliasChoices("quantization", "quantisation"),
    )
    aliases: tuple[Name, ...] = ()
    owned_by: str = "system"
    license: str | None = Field(None, min_length=1, description="None: that of the model card")
    bytes: int | None = Field(
        None, ge=1, description="of the weights, about; None: known once the files are present"
    )
    created: Annotated[int, BeforeValidator(_unix_seconds)] = Field(
        0, ge=0, description="Unix seconds; in the file a date, such as 2024-09-25"
    )

    @property
    def spec(self) -> BaseModelSpec:
        return BaseModelSpec(
            id=self.id,
            source=self.source,
            revision=self.revision,
            quantization=self.quantization,
        )


class Catalog:
    """Base models by id and alias."""

    def __init__(self, entries: Iterable[CatalogEntry]) -> None:
        """Raises BadCatalog if two entries share a name."""
        self._entries = tuple(entries)
        self._by_name: dict[str, CatalogEntry] = {}
        for entry in self._entries:
            for name in (entry.id, *entry.aliases):
                other = self._by_name.setdefault(name, entry)
                if other is not entry:
                    raise BadCatalog(
                        f"the name {name!r} of {entry.id!r} already belongs to {other.id!r}; "
                        "remove it from one of them"
                    )

    @classmethod
    def load(cls, path: Path | None = None) -> "Catalog":
        """Return the shipped entries, changed and extended by those of the user's file, if any.

        Names in the user's file win over shipped aliases, so a new alias never breaks a file.
        Raises BadCatalog if the file is not TOML, a field is invalid or a name is repeated.
        """
        tables = _read_tables(_SHIPPED_FILE)
        if path is not None:
            own = _read_tables(path)
            _give_up_aliases(tables.values(), own.values())
            for id_, table in own.items():
                tables[id_] = tables.get(id_, {}) | table
        try:
            return cls(_entry(table) for table in tables.values())
        except BadCatalog as error:
            raise BadCatalog(f"{path or _SHIPPED_FILE}: {error}") from None

    def bases(self) -> tuple[CatalogEntry, ...]:
        """Return all entries, the shipped ones first."""
        return self._entries

    def names(self) -> list[str]:
        """Return all ids and aliases."""
        return list(self._by_name)

    def entry(self, id_: str) -> CatalogEntry:
        """Return the entry of a resolved base."""
        return self._by_name[id_]

    def resolve(self, name: str) -> BaseModelSpec:
        """Return the base with this id or alias; NotFound suggests similar names."""
        entry = self._by_name.get(name)
        if entry is None:
            near = nearest(name, self._by_name, most=3, cutoff=0.5)
            hint = "Did you mean" if near else "Available"
            names = ", ".join(near or [base.id for base in self._entries])
            raise NotFound(
                f"There is no base model {name[:128]!r}. {hint}: {names}. Add other base models to "
                "the catalog file.",
                param="model",
                code="model_not_found",
            )
        return entry.spec


def _read_tables(path: Path) -> dict[str, dict[str, Any]]:
    """Return the tables of a file by id, with each source resolved."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadCatalog(f"{path}: this catalog file does not exist") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise BadCatalog(f"{path} is not TOML: {error}") from None

    bases = document.pop("bases", [])
    if document or not isinstance(bases, list):
        raise BadCatalog(f"{path}: a catalog may have only [[bases]] tables{_extra(document)}")
    tables: dict[str, dict[str, Any]] = {}
    for number, table in enumerate(bases, start=1):
        id_ = table.get("id") if isinstance(table, dict) else None
        if not isinstance(id_, str):
            raise BadCatalog(f"{path}: entry {number} of [[bases]] has no id; give it one")
        if id_ in tables:
            raise BadCatalog(f"{path}: the id {id_!r} is repeated; remove one of the entries")
        if isinstance(table.get("source"), str):
            table["source"] = _resolved(table["source"], path)
        tables[id_] = table
    return tables


def _give_up_aliases(shipped: Iterable[dict[str, Any]], own: Iterable[dict[str, Any]]) -> None:
    """Remove the aliases from shipped entries that are names in the user's file."""
    names: list[object] = []
    for table in own:
        aliases = table.get("aliases")
        names += [table["id"], *(aliases if isinstance(aliases, list) else ())]
    for table in shipped:
        table["aliases"] = [name for name in table.get("aliases", ()) if name not in names]


def _extra(document: dict[str, Any]) -> str:
    return f", not {', '.join(document)}" if document else ""


def _resolved(source: str, file: Path) -> str:
    """Return an absolute folder or a Hugging Face id; BadCatalog for anything else."""
    if source.startswith(_PACKAGE_PREFIX):
        return str(_PACKAGE_ROOT / source.removeprefix(_PACKAGE_PREFIX))
    if source.startswith(("/", "./", "../")):
        return str((file.absolute().parent / source).resolve())
    if _HUB_ID.fullmatch(source):
        return source
    raise BadCatalog(
        f"{file}: the source {source!r} is neither a Hugging Face id (organization/name) nor a "
        'folder (absolute, or "./…", relative to the file)'
    )


def _entry(table: dict[str, Any]) -> CatalogEntry:
    try:
        entry = CatalogEntry.model_validate(table)
    except ValidationError as error:
        errors = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
        )
        raise BadCatalog(f"the entry {table['id']!r} is invalid: {errors}") from None
    if entry.revision is not None and Path(entry.source).is_absolute():
        raise BadCatalog(
            f"the source of the entry {entry.id!r} is a folder, which has no revision; remove "
            "the revision"
        )
    return entry
