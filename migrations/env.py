"""Run by Alembic; `migrations.upgrade` passes a connection inside a transaction."""

from alembic import context

from core.records.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,
)
context.run_migrations()
