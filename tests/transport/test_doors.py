"""What transport says to values of the wrong kind, and of predictions that do not apply."""

import warnings

import numpy as np
import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.transport.link import Link, send
from rmtllmf_lib.transport.statistics import error_statistics
from rmtllmf_lib.transport.surrogate import error_covariance, surrogate
from sending import generator, vectors
from vectors import BASE, vector
from wireless import unit_uplink


@pytest.fixture(scope="module")
def link() -> Link:
    uplink = unit_uplink(np.random.default_rng(0))
    return Link(uplink, uplink.thermal_cov)


@pytest.mark.parametrize("draws", [None, 0, np.random.default_rng(0)])
def test_noise_has_a_generator_of_its_own(link: Link, draws: object) -> None:
    """With None, torch would take its global generator."""
    state = torch.random.get_rng_state()
    for call in (
        lambda: send(vectors(4, 100), link, generator=draws),  # type: ignore[arg-type]
        lambda: surrogate([vector(0)], BASE, 0.1, generator=draws),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match="generator is"):
            call()
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("what", ["points", "single", "name", "tensors", "none"])
def test_task_vectors_are_sent_and_nothing_else(link: Link, what: str) -> None:
    taus = vectors(4, 100)
    points = [Weights(tau.layout, tau.values) for tau in taus]
    tensors = [tau.values for tau in taus]
    given = {"points": points, "single": taus[0], "name": "tau", "tensors": tensors, "none": None}[what]
    for call in (
        lambda: send(given, link, generator=generator()),  # type: ignore[arg-type]
        lambda: surrogate(given, BASE, 0.1, generator=generator()),  # type: ignore[arg-type]
        lambda: error_covariance(given, BASE, 0.1),  # type: ignore[arg-type]
        lambda: error_statistics(taus, given),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=r"(taus|received)(\[0\])? is"):
            call()


def test_links_and_bases_are_what_they_are_called(link: Link) -> None:
    with pytest.raises(InputError, match="link is a Uplink: expected Link"):
        send(vectors(4, 100), link.uplink, generator=generator())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="base is 'tiny'"):
        surrogate([vector(0)], "tiny", 0.1, generator=generator())  # type: ignore[arg-type]


@pytest.mark.parametrize(("scheme", "warned"), [("pam8", True), ("pcm", True), ("analog-mmse", False)])
def test_heavy_tails_are_flagged_where_predictions_assume_none(scheme: str, warned: bool) -> None:
    """Numbers of Student's t with three degrees of freedom: more than predicted of them is clipped."""
    uplink = unit_uplink(np.random.default_rng(0), floor=1e-3)
    link = Link(uplink, uplink.thermal_cov)
    draws = torch.from_numpy(np.random.default_rng(0).standard_t(3, (4, 40_000))).float()
    layout = Layout(("visual.proj",), ((40_000,),))
    taus = [TaskVector(layout, 1e-3 * values, "base") for values in draws]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = send(taus, link, scheme, generator=generator()).statistics.table
        send(vectors(4, 40_000), link, scheme, generator=generator())  # Gaussian numbers
    assert len(caught) == warned
    moments = [float((values**4).mean() / (values**2).mean() ** 2) - 3 for values in draws.double()]
    np.testing.assert_allclose(table["sent_kurtosis"], moments, rtol=1e-4)
    if warned:
        assert "users [0, 1, 2, 3]" in str(caught[0].message)
        assert table["variance"].max() > 2 * table.loc[table["variance"].idxmax(), "predicted"]
