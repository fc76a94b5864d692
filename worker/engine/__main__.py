"""The engine process: `python -m worker.engine`."""

import logging
import sys

import torch

from core.cores import usable_cores
from core.open_files import allow_many_open_files
from worker.engine.parent import Parent, import_ahead, listen
from worker.engine.settings import EngineSettings


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every heartbeat
    settings = EngineSettings()
    threads = settings.threads or min(torch.get_num_threads(), usable_cores())
    allow_many_open_files()
    import_ahead()
    with listen(settings.host, settings.port) as listener:
        sys.exit(Parent(settings, listener, threads).run())


if __name__ == "__main__":
    main()
