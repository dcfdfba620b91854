"""Untrained bases on disk, in the format of the shipped one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rmtllmf_lib.model.backbone import new_model
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.training.pretrain import CONTEXT_LENGTH, vocabulary


def base_config() -> dict[str, Any]:
    words = vocabulary()
    return {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        "text_cfg": {
            "context_length": CONTEXT_LENGTH, "width": 32, "heads": 2, "layers": 1, "vocab_size": len(words) + 3
        },
        "vocabulary": list(words),
    }  # fmt: skip


def write_base(folder: Path, seed: int = 0) -> Path:
    """A random base of half the usual width."""
    config = base_config()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = new_model(config)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    save_file(model.state_dict(), file)
    (folder / "config.json").write_text(json.dumps(config))
    sign(folder)
    return folder


def sign(folder: Path) -> None:
    """Write the provenance of the model and its configuration as they are now."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    config = config_key(json.loads((folder / "config.json").read_text()))
    (folder / "provenance.json").write_text(json.dumps({"sha256": digest, "config_sha256": config}))
