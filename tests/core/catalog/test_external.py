"""The operator's file of external endpoints."""

from pathlib import Path

import pytest

from core.catalog.external import BadEndpoints, Endpoints
from core.spec.evals import ExternalModel

GOOD = """
[[endpoints]]
name = "cloud"
base_url = "https://api.example.com/v1/"
api_key = "secret"

[[endpoints]]
name = "local-vllm"
base_url = "http://127.0.0.1:8000/v1"
at_once = 4
"""


def load(folder: Path, text: str) -> Endpoints:
    path = folder / "endpoints.toml"
    path.write_text(text)
    return Endpoints.load(path)


def test_models_are_named_by_their_endpoint(tmp_path: Path) -> None:
    endpoints = load(tmp_path, GOOD)
    assert endpoints.names() == ["cloud", "local-vllm"]
    found = endpoints.find("cloud/org/gpt-x")
    assert found == ExternalModel(endpoint="cloud", model="org/gpt-x")
    assert found.id == "cloud/org/gpt-x"
    for name in ("cloud", "cloud/", "other/gpt", "tunesmith/tiny"):
        assert endpoints.find(name) is None


def test_endpoint_must_not_hide_a_base(tmp_path: Path) -> None:
    endpoints = load(tmp_path, GOOD)
    endpoints.require_distinct(["tiny", "cloud", "clouds/tiny"])
    with pytest.raises(
        BadEndpoints, match="the base 'cloud/tiny' begins with the endpoint 'cloud'"
    ):
        endpoints.require_distinct(["tiny", "cloud/tiny"])


def test_without_a_file_there_are_none() -> None:
    assert Endpoints.load(None).find("cloud/gpt") is None


def test_key_of_a_file_is_read_each_time(tmp_path: Path) -> None:
    key = tmp_path / "key"
    endpoints = load(
        tmp_path, f'[[endpoints]]\nname="a"\nbase_url="https://a/v1"\napi_key_file="{key}"\n'
    )
    endpoint = endpoints.get("a")
    assert endpoint is not None
    for written in ("one\n", "two"):
        key.write_text(written)
        assert endpoint.key() == written.strip()
    key.unlink()
    with pytest.raises(OSError):
        endpoint.key()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoints = 1", r"write each endpoint as a table \[\[endpoints\]\]"),
        ("other = 1", r"write each endpoint as a table"),
        ("[[endpoints", "is not TOML"),
        ('[[endpoints]]\nname = "a"', "'a', base_url: Field required"),
        ('[[endpoints]]\nname = "A b"\nbase_url = "https://a"', "name"),
        ('[[endpoints]]\nname = "a"\nbase_url = "file:///etc/passwd"', "base_url"),
        ('[[endpoints]]\nname = "a"\nbase_url = "ftp://a/v1"', "base_url"),
        ('[[endpoints]]\nname = "a"\nbase_url = "https://a/v1?x=1"', "base_url"),
        ('[[endpoints]]\nname = "a"\nbase_url = "https://me:word@a/v1"', "base_url"),
        ('[[endpoints]]\nname = "a"\nbase_url = "https://a"\nkey = "x"', "key: Extra inputs"),
        (GOOD + GOOD, "two endpoints have the name 'cloud'"),
        (
            '[[endpoints]]\nname="a"\nbase_url="https://a"\napi_key="x"\napi_key_file="/x"',
            "set api_key or api_key_file, not both",
        ),
    ],
)
def test_wrong_file_names_the_entry_and_the_fix(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadEndpoints, match=message) as refused:
        load(tmp_path, text)
    assert "endpoints.toml" in str(refused.value) and "secret" not in str(refused.value)


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadEndpoints, match="does not exist"):
        Endpoints.load(tmp_path / "none.toml")


def test_key_is_in_no_representation(tmp_path: Path) -> None:
    assert "secret" not in repr(load(tmp_path, GOOD).get("cloud"))
