"""Checkpoints of a training run restore it exactly, or are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import fresh_tower
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.tensor_file import CHECKSUM, read_sealed, write_sealed
from rmtllmf_lib.training.training_state import TrainingState
from small import small_backbone


def new_run(path: Path, start: int, **run: Any) -> TrainingState:
    """A small tower with a frozen part, and AdamW after two steps on random gradients."""
    tower = fresh_tower(small_backbone(start, layers=1)).requires_grad_(True)
    tower.conv1.weight.requires_grad_(False)
    trained = [parameter for parameter in tower.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01, fused=True)
    state = TrainingState(path, {"seed": 1, "recipe": {"betas": (0.9, 0.99)}, **run}, tower, optimizer)
    for step in range(2):
        advance(state, start + step)
    return state


def advance(state: TrainingState, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in state.optimizer.param_groups[0]["params"]:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    state.optimizer.step()


def flat(tower: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(tower.parameters()).detach()


def test_a_restored_run_continues_identically(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    saved, loaded = new_run(path, 0), new_run(path, 1)
    saved.save(2)
    assert not torch.equal(flat(saved.tower), flat(loaded.tower))
    assert loaded.resume() == 2
    assert torch.equal(flat(saved.tower), flat(loaded.tower))
    for seed in range(3):
        advance(saved, seed)
        advance(loaded, seed)
    assert torch.equal(flat(saved.tower), flat(loaded.tower))
    assert not loaded.tower.conv1.weight.requires_grad
    content = path.read_bytes()
    assert loaded.resume() == 2 and path.read_bytes() == content  # nothing writes into a file that was read
    path.unlink()
    assert loaded.resume() == 0


def test_it_is_plain_flat_buffers(tmp_path: Path) -> None:
    state = new_run(tmp_path / "state.safetensors", 0)
    state.save(2)
    layout = Layout.from_state_dict({f"visual.{name}": tensor for name, tensor in state.tower.named_parameters()})
    with safe_open(state.path, "pt") as file:
        assert sorted(file.keys()) == ["exp_avg", "exp_avg_sq", "weights"]
        weights, average = (layout.views(file.get_tensor(key)) for key in ("weights", "exp_avg"))
        assert file.metadata()["step"] == "2"
    assert torch.equal(weights["visual.proj"], state.tower.proj)
    assert average["visual.proj"].any() and not average["visual.conv1.weight"].any()


@pytest.mark.parametrize("change", ["types", "step", "nested", "no checksum"])
def test_a_checkpoint_that_was_changed_is_moved_aside(change: str, tmp_path: Path) -> None:
    state = new_run(tmp_path / "state.safetensors", 0)
    state.save(2)
    buffers, metadata = read_sealed(state.path)
    if change == "nested":  # with a checksum of its own
        write_sealed(state.path, buffers, {"step": "2", "run": "[" * 10**5})
    else:
        if change == "types":
            buffers = {key: buffer.view(torch.int32) for key, buffer in buffers.items()}
        metadata |= {"step": "3"} if change == "step" else {}
        if change == "no checksum":
            del metadata[CHECKSUM]
        save_file({key: buffer.clone() for key, buffer in buffers.items()}, state.path, metadata)
    assert state.resume() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors.damaged"]


def test_a_sealed_checkpoint_of_other_buffers_is_refused(tmp_path: Path) -> None:
    state = new_run(tmp_path / "state.safetensors", 0)
    state.save(2)
    buffers, metadata = read_sealed(state.path)
    for changed in ({"weights": buffers["weights"].view(torch.int32)}, {"exp_avg": buffers["exp_avg"][:5]}):
        write_sealed(state.path, {**buffers, **changed}, metadata)
        with pytest.raises(InputError, match=next(iter(changed))):
            state.resume()


def test_another_run_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    new_run(path, 0).save(2)
    assert new_run(path, 0).resume() == 2
    content = path.read_bytes()
    with pytest.raises(InputError, match=r"another run: device is None, expected 'cpu'; seed is 1, expected 2\."):
        new_run(path, 0, seed=2, device="cpu").resume()
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    state = new_run(tmp_path / "file" / "state.safetensors", 0)
    with pytest.raises(OSError, match="stopped at step 7: "):
        state.save(7)
