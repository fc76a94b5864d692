import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from core.artifacts.manifest import (
    MANIFEST_FILE,
    Manifest,
    read_manifest,
    verify,
    write_manifest,
)
from core.errors import TunesmithError
from core.spec.base_model import BaseModelSpec
from core.spec.job import JobSpec
from core.spec.strategy import LoraSpec

STORED = Path(__file__).parents[1] / "spec" / "first_spelling.json"


@pytest.fixture
def bundle(shared_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared_bundle, tmp_path / "bundle"))


def refused(folder: Path) -> TunesmithError:
    with pytest.raises(TunesmithError) as caught:
        verify(folder)
    assert caught.value.code == "artifact_corrupt"
    return caught.value


def test_any_flipped_bit_is_found(bundle: Path) -> None:
    seed = 5
    draw = random.Random(seed)
    for path in sorted(bundle.iterdir()):
        original = path.read_bytes()
        offsets = {0, len(original) - 1, *(draw.randrange(len(original)) for _ in range(8))}
        for offset in sorted(offsets):
            flipped = bytearray(original)
            flipped[offset] ^= 1 << draw.randrange(8)
            path.write_bytes(flipped)
            try:
                verify(bundle)
            except TunesmithError as error:
                assert error.code == "artifact_corrupt"
            else:
                # Only white space after the manifest's last brace carries no meaning.
                assert (path.name, offset) == (MANIFEST_FILE, len(original) - 1), f"seed {seed}"
        path.write_bytes(original)
    verify(bundle)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    assert "tokenizer.json" in refused(bundle).message


def test_an_extra_file_is_named(bundle: Path) -> None:
    (bundle / "payload.bin").write_bytes(b"x")
    assert "payload.bin" in refused(bundle).message


def test_a_link_is_no_file(bundle: Path, tmp_path: Path) -> None:
    (bundle / "README.md").rename(tmp_path / "README.md")
    (bundle / "README.md").symlink_to(tmp_path / "README.md")
    assert "regular file" in refused(bundle).message


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"files": 3}']
)
def test_a_missing_or_broken_manifest_makes_no_bundle(bundle: Path, content: bytes | None) -> None:
    (bundle / MANIFEST_FILE).unlink()
    if content is not None:
        (bundle / MANIFEST_FILE).write_bytes(content)
    refused(bundle)
    with pytest.raises(TunesmithError):
        read_manifest(bundle)


def test_a_folder_that_is_not_there_is_no_bundle(tmp_path: Path) -> None:
    refused(tmp_path / "nothing")


def test_a_manifest_from_before_bases_were_quantized_still_holds(bundle: Path) -> None:
    path = bundle / MANIFEST_FILE
    fields = json.loads(path.read_bytes())
    assert fields.pop("base_quantization") is None
    assert not fields.pop("chat_template_kwargs") and fields.pop("template_time") is None
    old = {name: value for name, value in fields.items() if name != "checksum"}
    text = json.dumps(old, separators=(",", ":"), ensure_ascii=False)
    assert fields["checksum"] == hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(fields))
    assert verify(bundle).base_quantization is None
    path.write_text(json.dumps(fields | {"base_quantization": "nf4"}))
    assert "checksum" in refused(bundle).message


def test_a_field_that_says_nothing_changes_no_older_checksum(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(Manifest):
        """As some later version may have it."""

        template_time: float | None = None
        variables: dict[str, Any] = Field(default_factory=dict)

    before = read_manifest(bundle).checksum
    monkeypatch.setattr("core.artifacts.manifest.Manifest", Later)
    assert read_manifest(bundle).checksum == before
    path = bundle / MANIFEST_FILE
    fields = json.loads(path.read_bytes())
    path.write_text(json.dumps(fields | {"variables": {"enable_thinking": False}}))
    assert "checksum" in refused(bundle).message


def test_a_later_field_of_a_strategy_changes_no_older_checksum(bundle: Path) -> None:
    path = bundle / MANIFEST_FILE
    fields = json.loads(path.read_bytes())
    assert fields["strategy"].pop("use_dora") is False
    assert fields["objective"] == {"type": "supervised"}
    left_out = {"checksum", "base_quantization", "chat_template_kwargs", "template_time"}
    old = {name: value for name, value in fields.items() if name not in left_out}
    text = json.dumps(old, separators=(",", ":"), ensure_ascii=False)
    path.write_text(json.dumps(fields | {"checksum": hashlib.sha256(text.encode()).hexdigest()}))
    strategy = verify(bundle).strategy
    assert isinstance(strategy, LoraSpec) and not strategy.use_dora
    path.write_text(path.read_text().replace('"use_rslora": false', '"use_rslora": true'))
    assert "checksum" in refused(bundle).message


def test_the_precision_of_training_is_recorded_and_guarded(bundle: Path) -> None:
    spec = JobSpec(base=BaseModelSpec(id="b", source="b"), seed=0)
    (bundle / MANIFEST_FILE).unlink()
    assert write_manifest(bundle, spec).precision is None
    assert write_manifest(bundle, spec, "fp32").precision == "fp32"
    assert verify(bundle).precision == "fp32"
    path = bundle / MANIFEST_FILE
    path.write_text(path.read_text().replace('"fp32"', '"bf16"'))
    assert "checksum" in refused(bundle).message


def test_a_bundle_with_the_first_spelling_of_its_fields_still_holds(tmp_path: Path) -> None:
    """The manifest was written by the code before the fields were renamed."""
    stored = json.loads(STORED.read_bytes())
    assert stored["manifest"]["base_quantisation"] == "nf4"
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(stored["manifest"]))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    manifest = verify(tmp_path)
    assert (manifest.base_quantization, manifest.strategy.type) == ("nf4", "qlora")
    changed = stored["manifest"] | {"base_quantisation": "int8"}
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(changed))
    assert "checksum" in refused(tmp_path).message
