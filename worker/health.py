"""The health check of a worker's container: `python -m worker.health` ends with 0 or an error.

A worker answers no HTTP. It can work while it reaches the database and the broker; that its
process lives is the container's own business.
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
