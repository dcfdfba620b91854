"""OpenAI's model through open_clip, without a network."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

import rmtllmf_lib.model.backbone as module
from artifacts import truncate
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import OPENAI_VIT, load_backbone
from rmtllmf_lib.training.heads import build_head
from small import small_task


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    module._openai.cache_clear()
    yield
    module._openai.cache_clear()


def quick_model(quick_gelu: bool = True) -> open_clip.CLIP:
    """What open_clip would return, but small; it reads OpenAI's tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
        text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
        return open_clip.CLIP(16, vision, text, quick_gelu=quick_gelu)


class HubError(Exception):
    """Not derived from any exception that we know, like those of the download layers."""


@pytest.mark.parametrize(
    "error",
    [
        OSError("no route to host"),
        RuntimeError("Failed to download weights for tag 'openai'\nand more"),
        HubError("cannot find the file"),
        HubError(),
        pickle.UnpicklingError("Weights only load failed"),
    ],
)
def test_weights_that_cannot_be_had(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def create(name: str, pretrained: str) -> open_clip.CLIP:
        asked.append((name, pretrained))
        raise error

    monkeypatch.setattr(open_clip, "create_model", create)
    for _ in range(2):  # failures are not cached: the network may come back
        with pytest.raises(InputError, match="could not be loaded from 'openai'") as caught:
            load_backbone(OPENAI_VIT)
        message = str(caught.value)
        assert type(error).__name__ in message and "and more" not in message
        assert "weights_file=<that file>" in message and "'tiny'" in message
        assert caught.value.__cause__ is error
    assert asked == [(OPENAI_VIT, "openai")] * 2


def test_an_interruption_is_no_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, pretrained: str) -> open_clip.CLIP:
        raise KeyboardInterrupt

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(KeyboardInterrupt):
        load_backbone(OPENAI_VIT)


def test_open_clip_knows_the_name() -> None:
    assert open_clip.get_model_config(OPENAI_VIT)["quick_gelu"] is True
    assert "openai" in open_clip.list_pretrained_tags_by_model(OPENAI_VIT)


def test_the_wrong_activation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip, "create_model", lambda name, pretrained: quick_model(quick_gelu=False))
    with pytest.raises(InputError, match="built without QuickGELU"):
        load_backbone(OPENAI_VIT)


@pytest.fixture
def from_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, pretrained: str) -> open_clip.CLIP:
        model = quick_model()
        open_clip.load_checkpoint(model, pretrained)  # what open_clip does with a path
        return model

    monkeypatch.setattr(open_clip, "create_model", create)


class Bomb:
    def __reduce__(self) -> Any:
        return (Path("exploded").touch, ())


@pytest.mark.usefixtures("from_file")
def test_a_file_that_holds_no_model_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pt")
    save_file(quick_model().state_dict(), tmp_path / "short.safetensors")
    truncate(tmp_path / "short.safetensors")
    (tmp_path / "empty.bin").write_bytes(b"")
    for name in ("bomb.pt", "short.safetensors", "empty.bin"):
        with pytest.raises(InputError, match=f"could not be loaded from .*{name}"):
            load_backbone(OPENAI_VIT, weights_file=tmp_path / name)
    assert not Path("exploded").exists()


@pytest.mark.usefixtures("from_file")
def test_openai_heads_are_those_of_open_clip(tmp_path: Path) -> None:
    """Any words: open_clip has a vocabulary of its own."""
    state = {name: tensor + 0.01 for name, tensor in quick_model().state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    backbone = load_backbone(OPENAI_VIT, weights_file=str(tmp_path / "weights.safetensors"))
    assert torch.equal(backbone.model.state_dict()["visual.proj"], state["visual.proj"])
    assert backbone.vocabulary is None and backbone.image_size == 32 and backbone.name == OPENAI_VIT
    names = ("red", "mauve", "汽车", "Boeing 737-200", "x" * 400)
    task = replace(small_task(), class_names=names, templates=("a {}.", "my {}!"), mean=backbone.mean, std=backbone.std)
    head = build_head(backbone, task)
    expected = open_clip.build_zero_shot_classifier(
        backbone.model, open_clip.get_tokenizer(OPENAI_VIT), task.class_names, [t.format for t in task.templates]
    )
    torch.testing.assert_close(head.weight, expected.T)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(5))
