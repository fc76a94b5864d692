"""The worker of the queue `device`, which trains: `python -m worker`.

Everything stands behind the guard, so that a child that imports this module does nothing.
"""


def main() -> None:
    from worker.process.run import run_device_worker

    run_device_worker()


if __name__ == "__main__":
    main()
