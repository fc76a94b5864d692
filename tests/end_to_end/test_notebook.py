"""The notebook of the examples runs as it is, from its own folder, against a real service."""

import ast

import nbformat
import pytest
from nbclient import NotebookClient

from tests.end_to_end.service import EXAMPLES, Service


def test_notebook_runs_with_the_stock_client(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{service.url}/v1")
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    assert "import tunesmith" not in "".join(cell.source for cell in notebook.cells)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    results = [output for output in notebook.cells[10].outputs if "data" in output]
    scores = ast.literal_eval(results[0]["data"]["text/plain"])
    base, tuned = sorted(scores, reverse=True)
    assert (base, tuned.split(":")[1]) == ("tunesmith/tiny", "tiny")
    assert scores[tuned] > scores[base]
