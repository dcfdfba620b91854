"""The commands pack and unpack: from a task vector to a payload file and back."""

from pathlib import Path

import pytest
import torch

from rmtllmf_lib.command import cli
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.transport.coded_payload import Quantised
from small import small_backbone, small_tau

BACKBONE = small_backbone(layers=1)
TAU = small_tau(BACKBONE.weights, 1, task="a")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rmtllmf_lib.model.backbone.load_backbone", lambda *_, **__: BACKBONE)
    TAU.save("tau.safetensors")


def test_a_vector_packed_and_unpacked_is_what_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("pack tau.safetensors --rank 4 --bits 2 --out a.payload".split()) == 0
    size = Path("a.payload").stat().st_size
    assert capsys.readouterr().err.startswith(f"a.payload: {size:,} bytes")
    assert cli.main("unpack a.payload --out new/a.safetensors".split()) == 0
    assert "rank 4, 2 bits" in capsys.readouterr().err
    found = TaskVector.load("new/a.safetensors", BACKBONE.weights)
    assert torch.equal(found.values, Quantised(LowRank(4), 2).arrived(TAU).values) and found.info == TAU.info


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pack tau.safetensors --rank 0 --out a.payload", "--rank is 0"),
        ("pack tau.safetensors --bits 17 --out a.payload", "--bits is 17"),
        ("pack tau.safetensors --rank 500 --out a.payload", "--rank is 500"),
        ("pack none.safetensors --out a.payload", "none.safetensors does not exist"),
        ("pack tau.safetensors --out tau.safetensors", "is the input"),
        ("unpack tau.safetensors --out b.safetensors", "'rmtllmf-task-vector'"),
        ("unpack none.payload --out b.safetensors", "none.payload does not exist"),
    ],
)
def test_bad_input(command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command.split()) == 2
    assert message in capsys.readouterr().err and not Path("a.payload").exists()


def test_outputs_are_guarded(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("pack tau.safetensors --out a.payload".split()) == 0
    assert cli.main("pack tau.safetensors --out a.payload".split()) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main("pack tau.safetensors --out a.payload --overwrite".split()) == 0
    assert cli.main("unpack a.payload --out a.payload".split()) == 2
    TAU.save("b.payload")
    assert cli.main("pack tau.safetensors --out b.payload --overwrite".split()) == 2
    assert "is a task vector" in capsys.readouterr().err


def test_a_payload_of_another_base(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("pack tau.safetensors --out a.payload".split()) == 0
    other = small_backbone(seed=1, layers=1)
    monkeypatch.setattr("rmtllmf_lib.model.backbone.load_backbone", lambda *_, **__: other)
    assert cli.main("unpack a.payload --out b.safetensors".split()) == 2
    assert "another base" in capsys.readouterr().err and not Path("b.safetensors").exists()
