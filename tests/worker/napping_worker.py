"""A real worker of the queue `light` that knows the kind `nap`: `python -m …napping_worker`."""

from core.tasks.kinds import KINDS
from tests.worker.nap import NAP


def main() -> None:
    from worker.process.run import run_light_worker

    KINDS["nap"] = NAP
    run_light_worker()


if __name__ == "__main__":
    main()
