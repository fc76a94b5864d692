"""The worker of the queue `device`, which trains: `python -m worker`.

All code is behind the guard, so a child that imports this module runs nothing.
"""


def main() -> None:
    from worker.process.run import run_device_worker

    run_device_worker()


if __name__ == "__main__":
    main()
