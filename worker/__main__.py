"""The worker process: `python -m worker`.

Everything stands behind the guard, so that a child that imports this module does nothing.
"""


def main() -> None:
    import logging
    from threading import Event

    from core.records.database import Database
    from core.storage.open import open_store
    from worker.app import serve
    from worker.launch import warm_up
    from worker.outages.retrying_store import RetryingStore
    from worker.presence import presence
    from worker.settings import WorkerSettings
    from worker.train import Worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = WorkerSettings()
    device = warm_up()
    database = Database(settings.database_url)
    store, stopping = open_store(settings.storage_folder, settings.storage_url), Event()
    worker = Worker(settings, database, RetryingStore(store, stopping), stopping)
    with presence(database, settings, device):
        serve(worker)
    database.close()


if __name__ == "__main__":
    main()
