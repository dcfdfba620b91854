"""Closed forms against gradient descent, normal equations, and sums written out."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mergers import LAYOUT, given_for, stacked, vectors
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.entries import average
from rmtllmf_lib.fusion.quadratic import fisher, regmean, wudi
from vectors import unhurried

Array = NDArray[np.float64]


def wudi_loss(M: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
    return sum(((M - W) @ W.T).square().sum() / W.square().sum() for W in users)  # type: ignore[return-value]


def test_wudi_is_where_the_authors_descent_ends() -> None:
    taus = vectors(3)
    merged = wudi(taus)
    for name, tensor in merged.state_dict().items():
        users = torch.stack([tau.state_dict()[name].double() for tau in taus])
        if users.ndim != 3:
            torch.testing.assert_close(tensor, users.mean(0).float())
            continue
        M = users.sum(0).requires_grad_(True)
        descent = torch.optim.LBFGS([M], 1, 500, None, 1e-12, 0, line_search_fn="strong_wolfe")

        def loss(M: torch.Tensor = M, users: torch.Tensor = users, descent: Any = descent) -> torch.Tensor:
            descent.zero_grad()
            value = wudi_loss(M, users)
            value.backward()
            return value

        descent.step(loss)
        np.testing.assert_allclose(tensor.numpy(), M.detach().numpy(), atol=2e-4, err_msg=name)


@unhurried
@given(st.integers(0, 99), st.integers(1, 6))
def test_wudi_is_stationary_and_beats_the_sum(seed: int, count: int) -> None:
    taus = vectors(count, seed)
    for name, tensor in wudi(taus).state_dict().items():
        if tensor.ndim == 2:
            users = torch.stack([tau.state_dict()[name].double() for tau in taus])
            M = tensor.double().requires_grad_(True)
            loss = wudi_loss(M, users)
            (gradient,) = torch.autograd.grad(loss, M)
            assert float(gradient.abs().max()) < 1e-4
            assert float(loss.detach()) <= float(wudi_loss(users.sum(0), users)) + 1e-9


def test_wudi_keeps_the_sum_where_no_user_looks() -> None:
    """Users of few directions: outside of all their rows the start, the sum, is as good as anything."""
    taus = vectors(2)
    for tau in taus:
        for view in LAYOUT.views(tau.values).values():
            if view.ndim == 2:
                view[:, 2:] = 0
    total, merged = (taus[0] + taus[1]).state_dict(), wudi(taus).state_dict()
    for name, tensor in merged.items():
        if tensor.ndim == 2:
            torch.testing.assert_close(tensor[:, 2:], total[name][:, 2:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("shrink", [0.0, 0.95, 1.0])
def test_regmean_solves_the_regression(shrink: float) -> None:
    taus = vectors(3)
    grams = given_for(taus)["grams"]
    merged = regmean(taus, grams=grams, shrink=shrink).state_dict()
    for name, tensor in merged.items():
        users = [tau.state_dict()[name].double().numpy() for tau in taus]
        if name not in grams[0]:
            np.testing.assert_allclose(tensor.numpy(), np.mean(users, axis=0), atol=1e-6)
            continue
        G = [each[name].double().numpy() for each in grams]
        G = [shrink * g + (1 - shrink) * np.diag(np.diag(g)) for g in G]
        users = [user.T for user in users] if name == "visual.proj" else users
        wanted = np.linalg.solve(sum(G), sum(g @ user.T for g, user in zip(G, users, strict=True))).T
        np.testing.assert_allclose(
            tensor.numpy(), wanted.T if name == "visual.proj" else wanted, atol=1e-5, err_msg=name
        )


def test_regmean_is_least_squares_on_the_inputs() -> None:
    taus, name = vectors(2), "visual.transformer.resblocks.1.mlp.c_proj.weight"
    X = [torch.randn(40, 16, generator=torch.Generator().manual_seed(k)).double() for k in range(2)]
    merged = regmean(taus, grams=[{name: x.T @ x} for x in X], shrink=1.0).state_dict()[name]
    targets = [x @ tau.state_dict()[name].double().T for x, tau in zip(X, taus, strict=True)]
    wanted = np.linalg.lstsq(torch.cat(X).numpy(), torch.cat(targets).numpy())[0].T
    np.testing.assert_allclose(merged.numpy(), wanted, atol=1e-6)


def test_regmean_without_inputs_is_the_mean() -> None:
    taus = vectors(3)
    nothing = [{name: 0 * gram for name, gram in each.items()} for each in given_for(taus)["grams"]]
    torch.testing.assert_close(regmean(taus, grams=nothing).values, average(taus).values)


def test_fisher_is_a_weighted_mean() -> None:
    taus = vectors(3)
    users, fishers = stacked(taus), given_for(taus)["fishers"]
    weights = np.array([f.numpy() / f.numpy().mean() + 1e-6 for f in fishers])
    np.testing.assert_allclose(
        fisher(taus, fishers=fishers).values, (weights * users).sum(0) / weights.sum(0), atol=1e-5
    )
    scaled = fisher(taus, fishers=[fishers[0] * 1e3, *fishers[1:]])
    torch.testing.assert_close(scaled.values, fisher(taus, fishers=fishers).values, atol=1e-5, rtol=0)
    flat = [torch.zeros(LAYOUT.size)] * 3
    torch.testing.assert_close(fisher(taus, fishers=flat).values, average(taus).values)


def test_refused() -> None:
    taus = vectors(2)
    needs = given_for(taus)
    with pytest.raises(InputError, match="grams has 1 items for 2"):
        regmean(taus, grams=needs["grams"][:1])
    with pytest.raises(InputError, match="shrink is 1.5"):
        regmean(taus, grams=needs["grams"], shrink=1.5)
    with pytest.raises(InputError, match="'visual.proj' have shape .3, 3.: expected .* .8, 8."):
        regmean(taus, grams=[{"visual.proj": torch.eye(3)}] * 2)
    with pytest.raises(InputError, match="fishers has 1 items"):
        fisher(taus, fishers=needs["fishers"][:1])
    with pytest.raises(InputError, match="floor is 0"):
        fisher(taus, fishers=needs["fishers"], floor=0.0)
    for bad in (torch.ones(3), -torch.ones(LAYOUT.size), torch.full((LAYOUT.size,), float("nan"))):
        with pytest.raises(InputError, match=r"fishers\[1\]"):
            fisher(taus, fishers=[needs["fishers"][0], bad])
