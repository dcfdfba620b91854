"""Cores of matrices in the directions of a known vector."""

import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tensors import singular_triplets
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.cores import Cores
from rmtllmf_lib.payload.low_rank import weight_matrices
from rmtllmf_lib.payload.payload import Encoded, Payload
from small import small_backbone, small_tau

BASE = small_backbone(layers=2).weights
KNOWN, TAU = small_tau(BASE, 1), small_tau(BASE, 2)
NAMES = weight_matrices(BASE.layout)
CORES = Cores(KNOWN, 3)


def test_no_vector_of_this_form_is_nearer() -> None:
    found = CORES.decode(CORES.encode(TAU), BASE.layout)
    assert isinstance(CORES, Payload) and CORES.numbers_layout(BASE.layout).size == 9 * len(NAMES)
    known, tau, decoded = (each.state_dict() for each in (KNOWN, TAU, found))
    for name, tensor in decoded.items():
        if name not in NAMES:
            assert torch.equal(tensor, known[name])
            continue
        U, _, V = singular_triplets(known[name], 3)
        forms = torch.einsum("ma,nb->abmn", U, V).reshape(9, -1)  # all matrices U core V' of one entry
        wanted = torch.linalg.lstsq(forms.T, (tau[name] - known[name]).double().reshape(-1, 1)).solution
        nearest = known[name].double() + (forms.T @ wanted).reshape(tensor.shape)
        torch.testing.assert_close(tensor.double(), nearest, rtol=0, atol=1e-7)
    assert (found - TAU).norm < (KNOWN - TAU).norm


def test_what_is_of_this_form_arrives_exactly() -> None:
    whole = CORES.decode(CORES.encode(TAU), BASE.layout)
    again = CORES.decode(CORES.encode(whole), BASE.layout)
    torch.testing.assert_close(again.values, whole.values, rtol=0, atol=1e-7)
    assert not CORES.encode(KNOWN).numbers.values.any()
    nothing = Cores(TaskVector(BASE.layout, torch.zeros(BASE.layout.size), BASE.hash), 2)
    assert not nothing.encode(TAU).numbers.values.any()  # no directions are known, and nothing is sent


def test_bad_input() -> None:
    smallest = min(min(shape) for shape in NAMES.values())
    with pytest.raises(InputError, match=f"expected at most {smallest}"):
        Cores(KNOWN, smallest + 1).encode(TAU)
    with pytest.raises(InputError, match="rank is 0"):
        Cores(KNOWN, 0)
    with pytest.raises(InputError, match="layout"):
        CORES.numbers_layout(Layout(("visual.proj",), ((4, 2),)))
    with pytest.raises(InputError, match="belongs to another base"):
        CORES.encode(TaskVector(BASE.layout, TAU.values, "0" * 64))
    other = Cores(KNOWN, 2).encode(TAU)
    with pytest.raises(InputError, match="payload's numbers"):
        CORES.decode(Encoded(other.numbers, other.side), BASE.layout)
