"""The worker of the queue `light`: `python -m worker.light`. It answers while others train.

Everything stands behind the guard, so that a child that imports this module does nothing.
"""


def main() -> None:
    from worker.process.run import run_light_worker

    run_light_worker()


if __name__ == "__main__":
    main()
