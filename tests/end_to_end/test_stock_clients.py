"""The stock clients' flows, which the API's own tests run without training, on the real thing."""

from pathlib import Path

from tests.clients import flow
from tests.clients.node_flow import run_node_flow
from tests.end_to_end.service import Service


def test_stock_python_client_trains_and_calls_a_model(service: Service) -> None:
    flow.main(f"{service.url}/v1")


def test_stock_node_client_trains_and_calls_a_model(service: Service, tmp_path: Path) -> None:
    assert run_node_flow(f"{service.url}/v1", tmp_path) == "done\n"
