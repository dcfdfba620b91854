"""Model Stock, LiNeS and learnt coefficients, each written out."""

import numpy as np
import pytest
import torch

from mergers import LAYOUT, stacked, vectors
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.entries import arithmetic, average
from rmtllmf_lib.fusion.scaling import depths, lines, model_stock, weighted
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector

DEPTHS = [0, 0, 0, 3, 1, 1, 2]


def test_depths() -> None:
    assert list(depths(LAYOUT).values()) == DEPTHS
    assert depths(Layout(("visual.ln_post.bias", "visual.transformer.resblocks.11.ln_1.bias"), ((2,), (2,)))) == {
        "visual.ln_post.bias": 13, "visual.transformer.resblocks.11.ln_1.bias": 12
    }  # fmt: skip
    with pytest.raises(InputError, match="'visual.a' and the others are in no block"):
        depths(Layout(("visual.a",), ((1,),)))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_model_stock_shrinks_the_mean_by_the_angle(count: int) -> None:
    (common,), taus = vectors(1, seed=9, scale=2.0), vectors(count)
    taus = [tau + common for tau in taus]
    found = model_stock(taus).state_dict()
    for name, tensor in found.items():
        users = [tau.state_dict()[name].double().flatten().numpy() for tau in taus]
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(users) for b in users[:i]]
        c = max(0, np.mean(cosines))
        wanted = count * c / (1 + (count - 1) * c) * np.mean(users, axis=0)
        np.testing.assert_allclose(tensor.flatten().numpy(), wanted, atol=1e-6)


def test_model_stock_at_its_ends() -> None:
    (tau,) = vectors(1)
    for same in ([tau], [tau] * 3):
        torch.testing.assert_close(model_stock(same).values, tau.values)
    assert not model_stock([tau, -tau]).values.any()
    assert not model_stock([0 * tau, 0 * tau]).values.any()


def test_lines_rises_with_the_depth() -> None:
    taus = vectors(4)
    total = arithmetic(taus)
    for merged, alpha in ((total, 1 / 4), (average(taus), 1.0)):
        scaled = lines(taus, merged, slope=0.5).state_dict()
        for (name, tensor), depth in zip(merged.state_dict().items(), DEPTHS, strict=True):
            step = min(max(depth - 1, 0), 1)  # two blocks: 0 in the first, 1 in the last
            torch.testing.assert_close(scaled[name], tensor * (alpha + 0.5 * step), rtol=1e-5, atol=1e-7)
    assert not lines(taus, 0 * total).values.any()


def test_lines_rises_evenly_through_the_blocks() -> None:
    names = tuple(f"visual.transformer.resblocks.{layer}.ln_1.bias" for layer in range(5))
    tau = TaskVector(Layout(names, ((2,),) * 5), torch.ones(10), "b" * 64)
    scaled = lines([tau, tau], tau + tau, slope=0.8).state_dict()
    for layer, name in enumerate(names):
        torch.testing.assert_close(scaled[name], torch.full((2,), 2 * (0.5 + 0.8 * layer / 4)))


def test_weighted_by_task_and_by_depth() -> None:
    taus, generator = vectors(3), np.random.default_rng(0)
    by_task, by_depth = generator.normal(size=3), generator.normal(size=(3, 4))
    np.testing.assert_allclose(weighted(taus, coefficients=by_task).values, by_task @ stacked(taus), atol=1e-5)
    found = weighted(taus, coefficients=by_depth).state_dict()
    for (name, tensor), depth in zip(found.items(), DEPTHS, strict=True):
        wanted = sum(c * tau.state_dict()[name] for c, tau in zip(by_depth[:, depth], taus, strict=True))
        torch.testing.assert_close(tensor, wanted.float(), atol=1e-5, rtol=0)


def test_refused() -> None:
    taus = vectors(3)
    with pytest.raises(InputError, match="slope is -1"):
        lines(taus, taus[0], slope=-1.0)
    for bad in (0.3, [0.3, 0.3], np.ones((3, 5)), np.ones((3, 4, 1))):
        with pytest.raises(InputError, match="coefficients"):
            weighted(taus, coefficients=bad)
    with pytest.raises(InputError, match="coefficients holds NaN"):
        weighted(taus, coefficients=[0.1, float("nan"), 0.1])
