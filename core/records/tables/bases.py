"""The bases of the catalog as the workers know them, and what each worker has of them.

Only the API reads the catalog, and only the workers see the disks. A base is identified by the
source and the revision of its files; bases that differ in quantization share them.
"""

from sqlalchemy import BigInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.records.tables.base import Table


class CatalogBase(Table):
    """The files of a base in the catalog of an API, for which workers look."""

    __tablename__ = "catalog_bases"

    source: Mapped[str] = mapped_column(Text, primary_key=True)
    revision: Mapped[str] = mapped_column(primary_key=True)
    """Empty for the default branch, and for a folder."""
    name: Mapped[str]
    """The id of one of the bases with these files."""


class WorkerBase(Table):
    """What one worker has of these files; deleted with the worker's row."""

    __tablename__ = "worker_bases"

    worker_id: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(Text, primary_key=True)
    revision: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    """The `core.spec.base_files.BaseState`."""
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    license: Mapped[str | None]
