from tests.api.fixtures import api, client, create_job, dataset, engine, running, upload

__all__ = ["api", "client", "create_job", "dataset", "engine", "running", "upload"]
