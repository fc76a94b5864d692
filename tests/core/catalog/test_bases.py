import subprocess
import sys
from pathlib import Path

import pytest

from core.catalog.bases import BadCatalog, Catalog
from core.errors import NotFound
from core.spec.base_model import BaseModelSpec

SHIPPED = {
    "tunesmith/tiny",
    "meta-llama/Llama-3.2-1B-Instruct",
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen3-0.6B",
    "mistralai/Mistral-7B-Instruct-v0.3",
}


def load(tmp_path: Path, text: str) -> Catalog:
    path = tmp_path / "catalog.toml"
    path.write_text(text)
    return Catalog.load(path)


def test_the_shipped_bases_are_known_by_id_and_alias() -> None:
    catalog = Catalog.load()
    assert {entry.id for entry in catalog.bases()} == SHIPPED
    by_id = catalog.resolve("Qwen/Qwen2.5-0.5B-Instruct")
    assert by_id == catalog.resolve("qwen2.5-0.5b-instruct")
    assert by_id == BaseModelSpec(
        id="Qwen/Qwen2.5-0.5B-Instruct", source="Qwen/Qwen2.5-0.5B-Instruct"
    )


def test_the_example_of_the_readme_is_a_catalog(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    example = readme.split("```toml\n")[1].split("```")[0]
    resolved = load(tmp_path, example).resolve("gpt-4o-mini-2024-07-18")
    assert resolved.source == "/models/llama-3.2-1b-instruct"


def test_names_of_a_user_file_win_over_shipped_aliases(tmp_path: Path) -> None:
    text = "[[bases]]\nid = 'tiny'\nsource = '/models/other'\naliases = ['qwen3-0.6b']"
    catalog = load(tmp_path, text)
    assert catalog.resolve("tiny").source == "/models/other"
    assert catalog.resolve("qwen3-0.6b").id == "tiny"
    assert catalog.resolve("tunesmith/tiny").id == "tunesmith/tiny"


def test_two_aliases_of_one_base_are_the_same_base(tmp_path: Path) -> None:
    text = "[[bases]]\nid = 'tunesmith/tiny'\naliases = ['gpt-4o', 'gpt-4o-mini-2024-07-18']"
    catalog = load(tmp_path, text)
    assert catalog.resolve("gpt-4o") == catalog.resolve("gpt-4o-mini-2024-07-18")


def test_every_shipped_base_says_its_license_and_size() -> None:
    for entry in Catalog.load().bases():
        if entry.id != "tunesmith/tiny":  # its files are there, and say so themselves
            assert entry.license and entry.bytes and entry.bytes > 500_000_000


def test_the_tiny_base_is_a_folder_of_the_package() -> None:
    source = Path(Catalog.load().resolve("tunesmith/tiny").source)
    assert source.is_absolute()
    assert source.parts[-3:] == ("core", "models", "tiny")
    assert (source.parent / "__init__.py").is_file()


def test_every_shipped_base_says_who_made_it_and_when() -> None:
    for entry in Catalog.load().bases():
        assert entry.created > 1_600_000_000
        assert entry.owned_by != "system"


def test_a_user_file_adds_bases(tmp_path: Path) -> None:
    catalog = load(
        tmp_path,
        """
        [[bases]]
        id = "acme/support"
        source = "acme/support-7b"
        revision = "v2"
        aliases = ["gpt-4o-mini-2024-07-18", "support"]
        owned_by = "acme"
        created = 2025-01-01
        """,
    )
    assert {entry.id for entry in catalog.bases()} == SHIPPED | {"acme/support"}
    assert catalog.resolve("gpt-4o-mini-2024-07-18") == BaseModelSpec(
        id="acme/support", source="acme/support-7b", revision="v2"
    )
    assert catalog.bases()[-1].created == 1_735_689_600


def test_a_user_file_changes_only_the_fields_that_it_gives(tmp_path: Path) -> None:
    before = Catalog.load()
    catalog = load(
        tmp_path,
        """
        [[bases]]
        id = "tunesmith/tiny"
        aliases = ["gpt-4o-mini-2024-07-18"]

        [[bases]]
        id = "Qwen/Qwen3-0.6B"
        revision = "main"
        """,
    )
    assert catalog.resolve("gpt-4o-mini-2024-07-18") == before.resolve("tunesmith/tiny")
    assert catalog.resolve("qwen3-0.6b").revision == "main"
    assert len(catalog.bases()) == len(before.bases())


def test_a_base_can_stand_there_plain_and_quantized(tmp_path: Path) -> None:
    entry = '[[bases]]\nid = "acme/{0}"\nsource = "acme/support"\nquantization = "{0}"\n'
    catalog = load(tmp_path, entry.format("nf4") + entry.format("int8"))
    for name in ("nf4", "int8"):
        spec = catalog.resolve(f"acme/{name}")
        assert (spec.source, spec.quantization) == ("acme/support", name)
    with pytest.raises(BadCatalog, match=r"'acme/int3' is invalid: quantization"):
        load(tmp_path, entry.format("int3"))


@pytest.mark.parametrize("source", ["./models/mine", "../there/models/mine", "{absolute}"])
def test_folders_are_absolute_or_beside_the_file(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "catalog.toml").write_text(
        f'[[bases]]\nid = "mine"\nsource = "{source.format(absolute=folder / "models" / "mine")}"\n'
    )
    monkeypatch.chdir(tmp_path)
    catalog = Catalog.load(Path("there/catalog.toml"))
    assert catalog.resolve("mine").source == str(folder / "models" / "mine")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tunesmith/tyni", "Did you mean: tunesmith/tiny"),
        ("qwen2.5-0.5b-instrct", "Did you mean: qwen2.5-0.5b-instruct"),
        ("zzz", "Available: tunesmith/tiny"),
        ("x" * 100_000, "There is no base model"),
        ("../../etc/passwd", "There is no base model"),
        ("", "There is no base model ''"),
    ],
)
def test_an_unknown_name_is_not_found(name: str, words: str) -> None:
    with pytest.raises(NotFound) as raised:
        Catalog.load().resolve(name)
    assert words in raised.value.message
    assert len(raised.value.message) < 600
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[bases", "is not TOML"),
        ("bases = 1", "may have only [[bases]] tables"),
        ("[[models]]\nid = 'a'", "may have only [[bases]] tables, not models"),
        ("[[bases]]\nsource = 'a/b'", "entry 1 of [[bases]] has no id"),
        ("bases = [1]", "entry 1 of [[bases]] has no id"),
        ("[[bases]]\nid = 'a'", "the entry 'a' is invalid: source: Field required"),
        ("[[bases]]\nid = 'a'\nsource = 1", "the entry 'a' is invalid: source:"),
        ("[[bases]]\nid = 'a'\nsource = ''", "the source '' is neither a Hugging Face id"),
        ("[[bases]]\nid = 'a'\nsource = 'models/x/y'", "is neither a Hugging Face id"),
        ("[[bases]]\nid = 'a'\nsource = 'https://x.y/z'", "is neither a Hugging Face id"),
        ("[[bases]]\nid = 'a'\nsource = 'b'\nrevison = 'c'", "'a' is invalid: revison: Extra"),
        ("[[bases]]\nid = 'ft:a'\nsource = 'b'", "the entry 'ft:a' is invalid: id:"),
        ("[[bases]]\nid = 'a/../b'\nsource = 'b'", "'a/../b' is invalid: id:"),
        ("[[bases]]\nid = 'a'\nsource = 'b'\naliases = 'c'", "'a' is invalid: aliases:"),
        ("[[bases]]\nid = 'a'\nsource = 'b'\ncreated = 'x'", "'a' is invalid: created:"),
        ("[[bases]]\nid = 'a'\nsource = '/b'\nrevision = 'c'", "a folder, which has no revision"),
        (
            "[[bases]]\nid = 'a'\nsource = 'b'\n[[bases]]\nid = 'a'\nsource = 'c'",
            "the id 'a' is repeated",
        ),
        (
            "[[bases]]\nid = 'a'\nsource = 'b'\naliases = ['Qwen/Qwen3-0.6B']",
            "the name 'Qwen/Qwen3-0.6B' of 'a' already belongs to 'Qwen/Qwen3-0.6B'",
        ),
        (
            "[[bases]]\nid = 'a'\nsource = 'b'\n[[bases]]\nid = 'c'\nsource='d'\naliases = ['a']",
            "the name 'a' of 'c' already belongs to 'a'",
        ),
    ],
)
def test_a_wrong_file_is_explained(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadCatalog) as raised:
        load(tmp_path, text)
    assert words in str(raised.value)
    assert "catalog.toml" in str(raised.value)


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(BadCatalog, match="catalog file does not exist"):
        Catalog.load(tmp_path / "nowhere.toml")


def test_storage_datasets_and_catalog_import_no_torch() -> None:
    program = (
        "import sys, core.catalog.bases, core.catalog.describe, core.storage.local, "
        "core.datasets.bounded, core.datasets.check, core.datasets.read\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    child = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == "[]\n"
