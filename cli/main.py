"""The `tunesmith` command."""

import argparse
import sys
from pathlib import Path

from cli.settings import DEFAULT_DATA_FOLDER
from cli.up import UpFailed, up


def main() -> None:
    parser = argparse.ArgumentParser(prog="tunesmith", description="Fine-tuning as a service.")
    commands = parser.add_subparsers(required=True, metavar="command")
    up_parser = commands.add_parser(
        "up",
        help="run the whole service on this machine",
        description="Run the whole service on this machine until Ctrl-C, with SQLite.",
    )
    up_parser.add_argument(
        "--data-dir",
        type=Path,
        default=DEFAULT_DATA_FOLDER,
        help="the folder for all data and logs (default: %(default)s)",
    )
    up_parser.add_argument("--port", type=_port, default=8000, help="default: %(default)s")
    up_parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="default: %(default)s; any address but loopback requires TUNESMITH_API_KEY",
    )
    arguments = parser.parse_args()
    try:
        up(arguments.data_dir, arguments.host, arguments.port)
    except UpFailed as error:
        sys.exit(f"tunesmith up: {error}")


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a valid port; use 1 to 65535")
    return port


if __name__ == "__main__":
    main()
