"""How many connections a process may have."""

import resource


def allow_many_open_files() -> None:
    """Raise the soft limit to the hard one: it is often 1024, and every stream takes two files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
