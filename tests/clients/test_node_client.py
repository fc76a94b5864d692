"""The stock Node client drives the whole flow."""

from pathlib import Path

from tests.api.live import Api
from tests.api.scripted_engine import ScriptedEngine
from tests.clients.node_flow import run_node_flow


def test_stock_node_client_drives_the_whole_flow(worked_api: Api, tmp_path: Path) -> None:
    assert run_node_flow(f"{worked_api.url}/v1", tmp_path) == "done\n"


def test_stock_node_client_reads_responses(
    api: Api, engine: ScriptedEngine, tmp_path: Path
) -> None:
    assert run_node_flow(f"{api.url}/v1", tmp_path, "responses.mjs") == "done\n"
