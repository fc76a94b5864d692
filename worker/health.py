"""The health check of a worker's container: `python -m worker.health` exits with 0, or fails.

A worker has no HTTP routes. It is healthy if it reaches the database and the broker. The container
runtime itself checks whether the process is alive.
"""

from sqlalchemy import select

from core.jobs.broker import Broker
from core.records.database import Database
from worker.settings import WorkerSettings


def main() -> None:
    settings = WorkerSettings()
    database = Database(settings.database_url)
    with database.reading() as session:
        session.execute(select(1))
    database.close()
    Broker(settings.broker_url).check()


if __name__ == "__main__":
    main()
