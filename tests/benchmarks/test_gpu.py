"""The benchmark of the paper's scale: its command on a CPU, its count of operations, and what it needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import gpu
from rmtllmf_lib.model.backbone import fresh_tower

TINY = gpu.Size(16, 8, 32, 2, 16, 16, 4, 2, 20, 2, 64, 2**16)

# Of the library's own dependencies, those that the page does not name.
WITHOUT = (
    "matplotlib", "seaborn", "sklearn", "papermill", "typer", "joblib", "pyarrow", "platformdirs", "transformers",
)  # fmt: skip


def test_the_command_prints_every_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "SMALL", TINY)
    assert gpu.main(["--device", "cpu", "--small", "--json", str(tmp_path / "rates.json")]) == 0
    out = capsys.readouterr().out
    for part in ("fine-tuning", "matrix rate", "evaluation", "fusing", "TSV-Merge", "realignment", "noise", "logits"):
        assert part in out
    assert "FAIL" not in out and "on a GPU only" in out
    rates = json.loads((tmp_path / "rates.json").read_text())["rates"]
    assert {"matrix_flops", "train_images", "cropped_images", "test_images", "realigned_images"} <= rates.keys()


def test_operations_are_those_that_torch_counts() -> None:
    tower = fresh_tower(gpu.bench(TINY, torch.device("cpu")).backbone).requires_grad_(True)
    counter = FlopCounterMode(display=False)
    with counter:  # with gradients, for which there is no fused encoder that the counter does not see
        tower(torch.zeros(2, 3, TINY.image, TINY.image))
    counted, ours = counter.get_total_flops(), 2 * gpu.forward_flops(TINY)
    attention = 2 * TINY.layers * 4 * ((TINY.image // TINY.patch) ** 2 + 1) ** 2 * TINY.width
    assert counted in (ours, ours - attention)  # the counter knows the fused attention of GPUs, and not that of CPUs


def test_operations_of_the_real_tower() -> None:
    assert gpu.forward_flops(gpu.B16) == pytest.approx(35.1e9, rel=0.01)


def test_it_needs_no_more_than_it_says(tmp_path: Path) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({WITHOUT})); import benchmarks.gpu"
    where = {**os.environ, "RMTLLMF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where, check=False)
    assert done.returncode == 0, done.stderr
