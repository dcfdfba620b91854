"""Variants that public code has: what they are, and how they are scored."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from rmtllmf_lib.chapters.mergers.traps import Scoring, breadcrumbs_by_row, emr_by_tensor, ties_by_tensor, traps
from rmtllmf_lib.fusion.entries import breadcrumbs, emr, ties
from rmtllmf_lib.fusion.mergers import MERGERS
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.suite import Suite
from small import small_backbone, small_head, small_task, small_tau

ONE = Layout(("visual.proj",), ((1, 60),))
TWO = Layout(("visual.ln_post.bias", "visual.proj"), ((20,), (4, 10)))


def vectors(layout: Layout, scale: float = 1.0) -> list[TaskVector]:
    g = torch.Generator().manual_seed(3)
    return [TaskVector(layout, scale * torch.randn(layout.size, generator=g), "base") for _ in range(3)]


def test_variants_equal_the_paper_s_where_there_is_one_tensor_of_one_row() -> None:
    taus = vectors(ONE)
    assert_allclose(ties_by_tensor(taus).values, ties(taus).values, rtol=1e-6)
    assert_allclose(breadcrumbs_by_row(taus).values, breadcrumbs(taus).values, rtol=1e-6)
    assert_allclose(emr_by_tensor(taus, task=1).values, emr(taus, task=1).values, rtol=1e-5)


def test_ties_trims_a_small_tensor_like_a_large_one() -> None:
    """A tensor a thousand times smaller than the other loses all its entries by the paper, and a share by this."""
    taus = [TaskVector(TWO, torch.cat([1e-3 * tau.values[:20], tau.values[20:]]), "base") for tau in vectors(TWO)]
    small = {rule: rule(taus, keep=0.3).state_dict()["visual.ln_post.bias"] for rule in (ties, ties_by_tensor)}
    assert not small[ties].any()
    alone = Layout(("visual.ln_post.bias",), ((20,),))
    parts = [TaskVector(alone, tau.values[:20].clone(), "base") for tau in taus]
    assert_allclose(small[ties_by_tensor], ties(parts, keep=0.3).values, rtol=1e-6)


def test_breadcrumbs_drops_in_every_row() -> None:
    taus = vectors(TWO)[:1]
    rows = breadcrumbs_by_row(taus, smallest=0.7, largest=0.1).state_dict()["visual.proj"]
    sent = taus[0].state_dict()["visual.proj"]
    for row, given in zip(rows, sent, strict=True):
        kept = np.argsort(np.abs(given.numpy()))[7:9]
        assert set(torch.nonzero(row)[:, 0].tolist()) == set(kept.tolist())
        assert_allclose(row[kept], given[kept])


def test_emr_is_scaled_by_means_of_means() -> None:
    taus = vectors(TWO)
    found, plain = emr_by_tensor(taus, task=0), emr(taus, task=0)
    means = [np.mean([float(view.abs().mean()) for view in each.state_dict().values()]) for each in (taus[0], found)]
    assert means[0] == pytest.approx(means[1])
    assert abs(found.norm / plain.norm - 1) > 1e-3


@pytest.fixture(scope="module")
def suite() -> Suite:
    backbone = small_backbone(layers=2)
    tasks = {name: small_task(name, seed) for seed, name in enumerate("abc")}
    taus = {name: small_tau(backbone.weights, seed, task=name) for seed, name in enumerate("abc")}
    return Suite(backbone, tasks, {name: small_head(seed) for seed, name in enumerate("abc")}, taus)


def test_scores_are_those_of_models_with_one_lambda(suite: Suite) -> None:
    scoring, tau = Scoring(suite, 10, 8), suite.taus["b"]
    model = suite.backbone.weights + 0.5 * tau
    expected = [accuracy(suite.backbone, model, scoring.test[name], suite.heads[name]) for name in "abc"]
    assert scoring.mean(dict.fromkeys("abc", tau), 0.5, scoring.test) == pytest.approx(np.mean(expected))
    tried = [scoring.mean(dict.fromkeys("abc", tau), lam, scoring.test) for lam in MERGERS["ties"].grid]
    assert min(tried) - 0.2 <= scoring.tuned(tau, "ties") <= 1


def test_every_trap_changes_the_vector(suite: Suite) -> None:
    found = traps(Scoring(suite, 10, 8))
    assert len(found) == 3 and found["trap"].is_unique
    assert found["entries"].between(1e-3, 1).all() and found["cosine"].between(0, 1).all()
    assert (found["cosine"][:2] < 0.999).all() and found["cosine"].iloc[2] == pytest.approx(1, abs=1e-4)
    assert found[["paper", "code"]].apply(lambda each: each.between(0, 1)).all(axis=None)
