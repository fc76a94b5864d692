"""Every table whose rows have an owner and an id."""

from core.records.tables import Owned, Table

OWNED_TABLES: set[type[Owned]] = {
    mapper.class_ for mapper in Table.registry.mappers if issubclass(mapper.class_, Owned)
}
