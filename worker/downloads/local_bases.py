"""Reports which bases have their files on this machine."""

from core.catalog.base_files import look_for
from core.records import worker_bases
from core.records.database import Database
from worker.settings import WorkerSettings


def report_local_bases(database: Database, settings: WorkerSettings) -> None:
    """Look for the bases of the catalog, and write what has changed since the last report."""
    with database.reading() as session:
        declared = worker_bases.declared_bases(session)
        reported = worker_bases.reported_bases(session, settings.worker_id)
    found = {
        each.files: look_for(each.spec, settings.hub_folder, may_download=not settings.hub_offline)
        for each in declared
    }
    if found != reported:
        with database.writing() as session:
            worker_bases.report_bases(session, settings.worker_id, found)
