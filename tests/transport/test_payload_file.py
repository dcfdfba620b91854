"""Payload files: decoded to the last bit as the link delivers them, small, and refused where anything is wrong."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.model.tensor_file import read_own, write_own
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.payload.sparse import Sparse
from rmtllmf_lib.transport import payload_file
from rmtllmf_lib.transport.coded_payload import Quantised
from rmtllmf_lib.transport.payload_file import KIND, payload_of_file, read_payload, write_payload
from small import small_backbone, small_tau
from vectors import unhurried

BASE = small_backbone(layers=2).weights
TAU = small_tau(BASE, 1, task="a")
SENT = Quantised(LowRank(3), 2)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    write_payload(tmp_path / "a.payload", TAU, SENT)
    return tmp_path / "a.payload"


@pytest.mark.parametrize(("rank", "bits", "clip"), [(1, 1, 3.0), (3, 2, 3.0), (4, 3, 2.5), (2, 16, 4.0), (5, 7, 3.0)])
def test_a_file_is_decoded_to_what_arrives(rank: int, bits: int, clip: float, tmp_path: Path) -> None:
    sent = Quantised(LowRank(rank), bits, clip)
    write_payload(tmp_path / "x", TAU, sent)
    found, expected = read_payload(tmp_path / "x", BASE, sent), sent.arrived(TAU)
    assert torch.equal(found.values, expected.values) and found.base_hash == TAU.base_hash
    assert found.info == TAU.info and payload_of_file(tmp_path / "x") == sent
    assert (tmp_path / "x").stat().st_size - sent.size(BASE.layout) / 8 < 1500  # the header alone


def test_a_file_has_the_bits_of_the_quantiser_and_no_others(packed: Path) -> None:
    """Read without the library: eight bits of a byte from the top, cells of width 2 clip / levels, times the rms."""
    tensors, metadata = read_own(packed, KIND)
    numbers = LowRank(3).encode(TAU).numbers
    text = "".join(f"{byte:08b}" for byte in tensors["codes"].tolist())
    codes = np.array([int(text[2 * place : 2 * place + 2], 2) for place in range(numbers.layout.size)])
    values = ((codes + 0.5) * 1.5 - 3) * float(metadata["rms"])
    assert np.isclose(float(metadata["rms"]), np.sqrt(np.mean(numbers.values.numpy() ** 2)), rtol=1e-6)
    own = numbers.values.numpy()
    nearest = np.abs(np.abs(own[:, None] / float(metadata["rms"]) - np.array([-2.25, -0.75, 0.75, 2.25]))).argmin(1)
    assert (codes == nearest).mean() > 0.999
    assert np.allclose(values, payload_file.dequantise(torch.tensor(codes), 4, 3.0).numpy() * float(metadata["rms"]))


@unhurried
@given(st.integers(1, 16), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_packing_and_unpacking(bits: int, count: int, seed: int) -> None:
    codes = torch.from_numpy(np.random.default_rng(seed).integers(0, 2**bits, count).astype(np.int32))
    packed = payload_file._packed(codes, bits)
    assert len(packed) == -(-count * bits // 8)
    assert torch.equal(payload_file._unpacked(packed, bits, count), codes)


def test_equal_vectors_make_equal_files_and_what_holds_of_the_whole_vector_alone_is_left_out(tmp_path: Path) -> None:
    info = {"task": "a", "seed": "3", "accuracy": "0.9", "validation_accuracy": "0.9", "settings": "x"}
    for name in "xy":
        write_payload(tmp_path / name, replace(TAU, info=info), SENT)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert read_payload(tmp_path / "x", BASE).info == {"task": "a", "seed": "3"}


def test_a_vector_of_zeros(tmp_path: Path) -> None:
    zeros = TaskVector(BASE.layout, torch.zeros(BASE.layout.size), BASE.hash)
    write_payload(tmp_path / "x", zeros, SENT)
    assert not read_payload(tmp_path / "x", BASE).values.any()


def test_every_flipped_bit_and_every_cut_is_found(packed: Path) -> None:
    whole = packed.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, len(whole), 60), 0, 8, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        packed.write_bytes(bytes(damaged))
        with pytest.raises(InputError, match=packed.name):
            read_payload(packed, BASE)
    for size in [0, 7, 100, len(whole) // 2, len(whole) - 1]:
        packed.write_bytes(whole[:size])
        with pytest.raises(InputError, match=packed.name):
            read_payload(packed, BASE)


def test_another_base(packed: Path) -> None:
    other = Weights(BASE.layout, BASE.values + 1)
    with pytest.raises(InputError, match=f"{packed.name} belongs to another base: '{BASE.hash[:12]}"):
        read_payload(packed, other)


def test_another_payload_than_is_asked_for(packed: Path) -> None:
    for sent, words in ((Quantised(LowRank(4), 2), "rank 4, 2 bits"), (Quantised(LowRank(3), 3), "rank 3, 3 bits")):
        with pytest.raises(InputError, match=f"holds rank 3, 2 bits, clip 3: expected {words}"):
            read_payload(packed, BASE, sent)


def rewritten(packed: Path, change: Mapping[str, str], codes: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
    """Write the file again with other content and the checksum that belongs to it."""
    tensors, metadata = read_own(packed, KIND)
    kept = {key: value for key, value in metadata.items() if not key.startswith(("format", "rmtllmf_"))}
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    if codes is not None:
        tensors = {"codes": codes(tensors["codes"])}
    write_own(packed, KIND, tensors, {key: value for key, value in {**kept, **change}.items() if value})


@pytest.mark.parametrize(
    ("change", "codes", "message"),
    [
        ({"rank": "2"}, None, "expected .* bytes for rank 2"),
        ({"bits": "3"}, None, "expected .* bytes for rank 3, 3 bits"),
        ({}, lambda codes: codes[:-1], "expected .* bytes for rank 3"),
        ({}, lambda codes: codes.int(), "torch.int32"),
        ({"rank": "0"}, None, "rank in .* is 0"),
        ({"rank": "99999999999999"}, None, "rank in .* is '9999"),
        ({"rank": "2000"}, None, "rank is 2000"),
        ({"rank": "three"}, None, "rank in .* is 'three'"),
        ({"bits": "17"}, None, "bits in .* is 17"),
        ({"clip": "-1"}, None, "clip in .* is '-1'"),
        ({"clip": "0"}, None, "clip in .* is 0"),
        ({"rms": "nan"}, None, "rms in .* is 'nan'"),
        ({"rms": "1e999"}, None, "rms in .* is '1e999'"),
        ({"rms": ""}, None, "lacks the metadata rms"),
        ({"layout_hash": "0" * 64}, None, "'000000000000'… of its layout"),
        ({"base_hash": "0" * 64}, None, "another base: '000000000000'…"),
        ({"info.n_train": "1e9"}, None, "n_train"),
    ],
)
def test_content_that_contradicts_itself(
    change: dict[str, str],
    codes: Callable[[torch.Tensor], torch.Tensor] | None,
    message: str,
    packed: Path,
) -> None:
    rewritten(packed, change, codes)
    with pytest.raises(InputError, match=message):
        read_payload(packed, BASE)


def test_files_of_other_kinds(packed: Path, tmp_path: Path) -> None:
    TAU.save(tmp_path / "tau.safetensors")
    with pytest.raises(InputError, match="'rmtllmf-task-vector'.*expected 'rmtllmf-payload'"):
        read_payload(tmp_path / "tau.safetensors", BASE)
    with pytest.raises(InputError, match="'rmtllmf-payload'.*expected 'rmtllmf-task-vector'"):
        TaskVector.load(packed)
    (tmp_path / "text").write_text(json.dumps({"codes": "none"}))
    with pytest.raises(InputError, match="JSON"):
        payload_of_file(tmp_path / "text")
    with pytest.raises(InputError, match="does not exist"):
        read_payload(tmp_path / "none", BASE)


def test_other_payloads_and_too_large_a_rank_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Sparse"):
        write_payload(tmp_path / "x", TAU, Quantised(Sparse(0.1), 2))
    with pytest.raises(InputError, match="rank is 1000"):
        write_payload(tmp_path / "x", TAU, Quantised(LowRank(1000), 2))
    assert not (tmp_path / "x").exists()
