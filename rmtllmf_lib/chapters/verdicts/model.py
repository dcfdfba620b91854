"""Claims about the fused model: Eqs. (1) and (6), Section II-B, and what Section III takes for granted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from rmtllmf_lib.arrays import Real
from rmtllmf_lib.chapters.verdicts.claims import Finding, UntestableError, graded, measures
from rmtllmf_lib.chapters.verdicts.evidence import ModelEvidence, at_least_three
from rmtllmf_lib.chapters.wde_mse_test.ratio_tables import acceptance, alarms, tame, variance_ratios
from rmtllmf_lib.chapters.words import beyond_rounding
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.linearise import Network, first_order, network
from rmtllmf_lib.disentanglement.noisy_logits import VALID, linearisation_error, model_draws, perturb
from rmtllmf_lib.disentanglement.ratio_test import FOLDED
from rmtllmf_lib.disentanglement.wde import images_of, noise_std, wde
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.task_vector import Weights, cosine_matrix
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.training.evaluate import accuracy, prepare
from rmtllmf_lib.transport.scenario import CLEAN, Scenario, inject_mse

LAMBDAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)  # tried against the published lambda_N
FEW_IMAGES = 5  # of each task, for derivatives
FEW_TASKS = 3
Z_BETA = 1.96
SMALL = 1e-3  # of the MSE of the ideal link, where the MSE is to go to zero


def _networks(evidence: ModelEvidence, limit: int = FEW_IMAGES) -> dict[str, Network]:
    suite, limit = evidence.suite, max(1, min(limit, evidence.images))
    return {
        name: network(suite.backbone, suite.tasks[name].test, suite.heads[name], limit=limit, device=suite.device)
        for name in list(suite.tasks)[:FEW_TASKS]
    }


def _models(evidence: ModelEvidence, limit: int = FEW_IMAGES) -> Mapping[str, FirstOrder]:
    fused = evidence.suite.fuse(lam=evidence.lam)
    return {name: first_order(net, fused) for name, net in _networks(evidence, limit).items()}


def _std(evidence: ModelEvidence, mse: float, scale: str = "task") -> float:
    return noise_std(mse, evidence.taus, evidence.suite.backbone.weights, evidence.lam, scale=scale)


@measures("Eq. (1)")
def _task_vectors(evidence: ModelEvidence) -> Finding:
    rows = evidence.everything
    own = rows.groupby("task")["reference"].first()
    base = rows[rows["protection"] == "base"].groupby("task")["accuracy"].mean()
    means = {"base": 100 * base.mean(), "own": 100 * own.mean()}
    return graded((own > base).all(), own.mean() > base.mean(), images=rows["images"].max(), **means)


def _on_validation(evidence: ModelEvidence, models: Mapping[tuple[str, float], Callable[[], Weights]]) -> pd.Series:
    """Return the normalised accuracy of models on validation images, mean over the tasks; one is made at a time."""
    suite, score, own = evidence.suite, {}, {}
    for name, tau in suite.taus.items():
        images = prepare(suite.backbone, suite.tasks[name].validation, limit=evidence.images, device=suite.device)
        score[name] = partial(accuracy, suite.backbone, split=images, head=suite.heads[name])
        own[name] = score[name](suite.backbone.weights + tau)
    scores: dict[str, dict[tuple[str, float], float]] = {name: {} for name in own}
    for key, make in models.items():
        weights = make()
        for name, found in scores.items():
            found[key] = score[name](weights) / own[name]
    return pd.DataFrame({name: pd.Series(found) for name, found in scores.items()}).mean(axis=1)


@measures("Eq. (6)")
def _fusion(evidence: ModelEvidence) -> Finding:
    """Compare the published lambda_N with the best one for every noise."""
    links = {"clean": CLEAN} | {link.name: link for link in inject_mse("half")}
    models = {
        (name, lam): partial(fuse, evidence.suite.backbone.weights, arrived, lam)
        for name, arrived in ((name, evidence.received(link)) for name, link in links.items())
        for lam in (*LAMBDAS, evidence.lam)
    }
    scores = _on_validation(evidence, models)
    best = {name: float(scores[name].idxmax()) for name in links}
    lost = {name: scores[name].max() - scores[name][evidence.lam] for name in links}
    numbers = {"n": len(evidence.taus), "lam": evidence.lam, "best": best, "lost": 100 * max(lost.values())}
    return graded(max(lost.values()) < 0.05, lost["clean"] < 0.05, **numbers)


def _wdes(evidence: ModelEvidence, own_lam: float | None = None, scenario: Scenario | None = None) -> pd.Series:
    suite, lam = evidence.suite, evidence.lam
    fused = None if scenario is None else fuse(suite.backbone.weights, evidence.received(scenario), lam)
    images = images_of(suite, limit=evidence.images)
    return wde(suite, images, lam, own_lam, fused=fused)["wde"]


def _wde_total(evidence: ModelEvidence, scenario: Scenario | None = None) -> float:
    return float(_wdes(evidence, scenario=scenario).mean())


@measures("Eq. (7)")
def _wde(evidence: ModelEvidence) -> Finding:
    """Whether more tasks give a larger error; with one it is zero by definition."""
    suite, n = evidence.suite, at_least_three(evidence)
    pair = images_of(suite, list(suite.tasks)[:2], limit=evidence.images)
    two, together = float(wde(suite, pair, evidence.lam)["wde"].mean()), _wde_total(evidence)
    return graded(together > two, together > 0, two=two, together=together, n=n)


@measures("Eq. (8)")
def _indicator(evidence: ModelEvidence) -> Finding:
    """Whether it matters which lambda_i is meant, which the paper leaves open."""
    fused, specialist = _wdes(evidence), _wdes(evidence, own_lam=1.0)
    most, totals = abs(fused - specialist).max(), (fused.mean(), specialist.mean())
    same = abs(totals[1] - totals[0]) <= 0.25 * totals[0]
    return graded(most <= 0.02, same, fused=totals[0], specialist=totals[1], most=most)


@measures("Eq. (9)")
def _difference(evidence: ModelEvidence) -> Finding:
    """Check the numbers of an identity."""
    base, lam = evidence.suite.backbone.weights, evidence.lam
    sent, arrived = evidence.taus, evidence.received(Scenario("SR", PAPER_LINKS["SR"].mse))
    delta = fuse(base, arrived, lam).values - fuse(base, sent, lam).values
    errors = lam * torch.stack([one.values - two.values for one, two in zip(arrived, sent, strict=True)]).sum(0)
    off = float((delta - errors).norm() / errors.norm())
    return graded(off < 1e-4, off=beyond_rounding(off, 1e-4))


@measures("Eq. (10)")
def _taylor(evidence: ModelEvidence) -> Finding:
    mse = PAPER_LINKS["ideal"].mse
    stds = [_std(evidence, mse), _std(evidence, mse, "weight")]
    fused = evidence.suite.fuse(lam=evidence.lam)
    generator = torch.Generator().manual_seed(evidence.seed)
    table = linearisation_error(perturb(_networks(evidence), fused, stds, 4, generator=generator))
    small, large = np.sqrt((table["error"] ** 2).groupby(table["std"]).mean().loc[stds])
    return graded(large < VALID, small < VALID, mse=mse, small=100 * small, large=100 * large)


def _noisy(evidence: ModelEvidence, std: float) -> tuple[Mapping[str, FirstOrder], dict[str, Real], dict[str, Any]]:
    """Return first-order models, logits of whole noisy models, and which logits the noise hardly moves."""
    models, generator = _models(evidence), torch.Generator().manual_seed(evidence.seed)
    chosen = tame(models, std)
    if not any(each.any() for each in chosen.values()):
        raise UntestableError("the noise moves every logit by more than a tenth of it: take less noise")
    fused = evidence.suite.fuse(lam=evidence.lam)
    return models, model_draws(_networks(evidence), fused, [std], evidence.draws, generator=generator), chosen


@measures("Eq. (11)")
def _variance(evidence: ModelEvidence) -> Finding:
    """Compare the printed variance in the paper's units, where a weight's error has the variance mu_q itself."""
    mse, power = PAPER_LINKS["ideal"].mse, sum(tau.rms**2 for tau in evidence.taus)
    std = _std(evidence, mse)
    models, noisy, chosen = _noisy(evidence, std)
    found = variance_ratios(models, noisy, [std], chosen).groupby("statistic")["ratio"].mean()
    share = found["|R − 1|"]
    ratio = mse * power / std**2 / share  # (J / z_u)^2 is in both
    units = len(evidence.taus) / power
    return graded(0.9 < ratio < 1.1, ratio=ratio, units=units, share=share, theory=FOLDED**2)


@measures("Eq. (12)")
def _limit(evidence: ModelEvidence) -> Finding:
    """Count how many logits of noisy models are within both readings of the threshold, at a very small MSE."""
    reference = PAPER_LINKS["ideal"].mse
    mse = SMALL * reference
    std = _std(evidence, mse)
    models, noisy, chosen = _noisy(evidence, std)
    table = acceptance(models, noisy, [std], chosen, z_beta=Z_BETA, reference_std=_std(evidence, reference))
    kept = table.groupby("reading")["accepted"].mean()
    return graded(kept["moving"] > 0.999, kept["fixed"] > 0.999, mse=mse, reference=reference, **kept)


@measures("Ratio test")
def _ratio_test(evidence: ModelEvidence) -> Finding:
    """Compare alarms with changed predictions, on logits with noise to first order, and with a constant added."""
    std, rng = _std(evidence, PAPER_LINKS["SR"].mse), evidence.rng()
    models = _models(evidence, limit=evidence.images // 2)
    noisy = {name: model.logits + std * model.sample(400, rng) for name, model in models.items()}
    found = alarms(models, noisy, std, shifts=(0.0, 10.0))
    alarm, silenced = found["some_ratio"]
    flipped = found["flipped"][0]
    right = abs(alarm - flipped) < 0.05
    shares = {"alarm": 100 * alarm, "flipped": 100 * flipped, "shifted": 100 * silenced}
    return graded(right and abs(silenced - alarm) < 0.05, right, **shares)


@measures("MSE and interference")
def _interference(evidence: ModelEvidence) -> Finding:
    mse, clean = PAPER_LINKS["SR"].mse, _wde_total(evidence)
    task, weight = (_wde_total(evidence, scenario=Scenario("SR", mse, scale, "half")) for scale in ("task", "weight"))
    grows = weight > clean + 0.1
    return graded(grows and task > clean + 0.1, grows, clean=clean, mse=mse, task=task, weight=weight)


@measures("Frozen embeddings")
def _frozen_anyway(evidence: ModelEvidence) -> Finding:
    suite = evidence.suite
    moved = max(tau.only("embeddings").norm / tau.norm for tau in evidence.taus)
    if moved == 0:
        raise UntestableError("these task vectors were trained with frozen embeddings")
    reloaded = replace(suite, taus={name: tau.without("embeddings") for name, tau in suite.taus.items()})
    own, base = (each.score({})["fine_tuned"].mean() for each in (suite, reloaded))
    lost, layout = own - base, suite.backbone.weights.layout
    entries = sum(part.stop - part.start for part in layout.ranges("embeddings")) / layout.size
    numbers = {"moved": 100 * moved, "entries": 100 * entries, "lost": 100 * lost}
    return graded(moved < 0.1 and lost < 0.01, lost < 0.01, **numbers)


@measures("Direction")
def _direction(evidence: ModelEvidence) -> Finding:
    """On the scale of task vectors the cosine follows from the MSE; on that of the weights, from their lengths too."""
    kept: dict[str, Any] = {}
    for scale in ("task", "weight"):
        arrived = evidence.received(Scenario("ideal", PAPER_LINKS["ideal"].mse, scale, "half"))
        both = [cosine_matrix([one, two])[0, 1] for one, two in zip(evidence.taus, arrived, strict=True)]
        kept[scale] = float(np.mean(both))
    left = "little" if kept["weight"] < 0.3 else "not all"
    return graded(min(kept.values()) > 0.9, kept["task"] > 0.9, **kept, left=left)
