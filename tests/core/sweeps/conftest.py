from tests.core.records.conftest import make_file, new_job

__all__ = ["make_file", "new_job"]
