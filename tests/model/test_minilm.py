"""The published MiniLM: unpacked from its package, checked by hash, and its features."""

import hashlib
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model import minilm
from rmtllmf_lib.model.backbone import load_backbone, text_features
from rmtllmf_lib.model.minilm import unpacked_minilm

FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "model.safetensors": b"weights"}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of small files in place of the published ones."""
    archive = tmp_path / "package" / "model.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, content in FILES.items():
            zipped.writestr(name, content)
    spec = ModuleSpec(minilm.PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(archive.parent)]
    monkeypatch.setattr(minilm, "find_spec", lambda name: spec)
    monkeypatch.setattr(minilm, "FILES", {n: hashlib.sha256(content).hexdigest() for n, content in FILES.items()})
    monkeypatch.setenv("RMTLLMF_HOME", str(tmp_path / "store"))
    return archive


def test_files_are_unpacked_once_and_mended(package: Path) -> None:
    folder = unpacked_minilm()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert unpacked_minilm() == folder and {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    (folder / "model.safetensors").write_bytes(b"weighty")
    assert (unpacked_minilm() / "model.safetensors").read_bytes() == b"weights"
    package.unlink()
    assert unpacked_minilm() == folder  # nothing is missing


def test_other_weights_are_refused(package: Path) -> None:
    with zipfile.ZipFile(package, "w") as zipped:
        for name, content in FILES.items():
            zipped.writestr(name, content + (b"!" if name == "model.safetensors" else b""))
    with pytest.raises(InputError, match=r"model\.safetensors in .* has sha256"):
        unpacked_minilm()
    with zipfile.ZipFile(package, "w") as zipped:
        zipped.writestr("readme", b"")
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        unpacked_minilm()
    package.write_bytes(b"no archive")
    with pytest.raises(InputError, match="is damaged"):
        unpacked_minilm()


def test_without_the_package_one_sentence_says_so(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'rmtllmf\[language\]'"):
        load_backbone("minilm")


def test_features_are_those_of_transformers_own_pipeline() -> None:
    texts = ["A model that is fused from eight.", "jammed", "What does the base station hold once vectors arrive? " * 9]
    folder, backbone = unpacked_minilm(), load_backbone("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model(**rows).last_hidden_state
    mask = rows["attention_mask"][..., None].float()
    expected = functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    assert (text_features(backbone, texts) - expected).abs().max() < 1e-5
    assert backbone.weights.layout.size == 22_565_376
