"""The protection: clean embeddings, everything else as it was received."""

import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion import fuse
from rmtllmf_lib.layout import group_of
from rmtllmf_lib.resilience import reload_embeddings
from rmtllmf_lib.task_vector import Weights
from small import small_backbone, small_tau
from vectors import BASE, vector


def test_embeddings_are_the_bases_and_the_rest_is_untouched() -> None:
    base = small_backbone(layers=2).weights
    fused = fuse(base, [small_tau(base, seed) for seed in (1, 2)], 0.5)
    before = fused.values.clone()
    protected = reload_embeddings(fused, base)
    kinds = set()
    for name, tensor in protected.state_dict().items():
        clean = group_of(name) == "embeddings"
        kinds.add(clean)
        assert torch.equal(tensor, (base if clean else fused).state_dict()[name])
        assert not torch.equal(tensor, (fused if clean else base).state_dict()[name])
    assert kinds == {True, False}
    assert torch.equal(fused.values, before)  # the argument is not changed
    assert protected.origin == fused.origin == base.hash
    assert reload_embeddings(protected, base).hash == protected.hash


def test_nothing_changes_where_embeddings_were_frozen() -> None:
    fused = BASE + vector(1).without("embeddings")
    assert reload_embeddings(fused, BASE).hash == fused.hash
    assert reload_embeddings(BASE, BASE).hash == BASE.hash


def test_another_base_is_refused() -> None:
    fused = BASE + vector(1)
    other = Weights(BASE.layout, BASE.values + 1)
    with pytest.raises(InputError, match=f"stand on base {BASE.hash[:12]}…, expected {other.hash[:12]}…"):
        reload_embeddings(fused, other)
    with pytest.raises(InputError, match="the fused weights"):
        reload_embeddings(fused, small_backbone(layers=1).weights)
