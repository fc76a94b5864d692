"""The API process: `python -m api`."""

import gc


def main() -> None:
    # Modules are not freed while the process starts, so collecting then costs a quarter of the
    # start and finds almost nothing.
    gc.disable()
    from api.process import run_api

    run_api()


if __name__ == "__main__":
    main()
