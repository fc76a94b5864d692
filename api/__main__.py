"""The API process: `python -m api`."""

import gc


def main() -> None:
    # No module is freed while the process starts, so collecting there costs a quarter of the start
    # and finds nothing.
    gc.disable()
    from api.process import run_api

    run_api()


if __name__ == "__main__":
    main()
