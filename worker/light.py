"""The worker of the queue `light`: `python -m worker.light`. It runs short tasks during training.

All code is behind the guard, so a child that imports this module runs nothing.
"""


def main() -> None:
    from worker.process.run import run_light_worker

    run_light_worker()


if __name__ == "__main__":
    main()
