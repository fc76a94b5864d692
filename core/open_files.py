"""The limit of open files, and so of connections, of a process."""

import resource


def allow_many_open_files() -> None:
    """Raise the soft limit to the hard limit: it is often 1024, and each stream uses two files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
