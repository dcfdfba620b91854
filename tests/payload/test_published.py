"""Published adapters become task vectors beside published models."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.lora import Lora
from rmtllmf_lib.payload.peft_folder import MODEL, save_adapter
from rmtllmf_lib.payload.published import import_task_vectors
from small import small_backbone, small_tau

BASE = small_backbone(layers=2).weights


def test_an_adapter_beside_a_whole_model(tmp_path: Path) -> None:
    lora = Lora(2, 4.0, ("q", "v"))
    encoded = lora.encode(small_tau(BASE, 1, size=1e-3))
    save_adapter(tmp_path / "adapter", lora, encoded, BASE.layout)
    (tmp_path / "whole").mkdir()
    save_file((BASE + small_tau(BASE, 2, size=1e-3)).state_dict(), tmp_path / "whole" / "model.safetensors")
    files = {"a": tmp_path / "adapter", "b": tmp_path / "whole"}
    table = import_task_vectors(files, BASE, tmp_path / "tau")
    assert list(table["names"]) == ["PEFT", "open_clip"]
    tau = TaskVector.load(tmp_path / "tau" / "a.safetensors", BASE)
    assert torch.equal(tau.values, lora.decode(encoded, BASE.layout).values)
    assert tau.info["task"] == "a" and "rank 2 of q, v" in tau.info["note"]
    assert {name.split(".attn.")[-1] for name, x in tau.state_dict().items() if x.any()} == {"in_proj_weight"}


def test_an_adapter_without_its_settings_is_refused(tmp_path: Path) -> None:
    lora = Lora(2, 4.0)
    save_adapter(tmp_path / "x", lora, lora.encode(small_tau(BASE, 1, size=1e-3)), BASE.layout)
    (tmp_path / "x" / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=f"{MODEL}.*adapter"):
        import_task_vectors({"a": tmp_path / "x"}, BASE, tmp_path / "tau")
    assert not (tmp_path / "tau").exists()
