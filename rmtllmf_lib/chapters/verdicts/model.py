"""Claims about the fused model: Eqs. (1) and (6), Section II-B, and what Section III takes for granted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from rmtllmf_lib.chapters.verdicts.claims import Finding, graded, measures
from rmtllmf_lib.chapters.verdicts.evidence import ModelEvidence
from rmtllmf_lib.disentanglement.first_order import FirstOrder
from rmtllmf_lib.disentanglement.linearise import Network, first_order, network
from rmtllmf_lib.disentanglement.noisy_logits import VALID, linearisation_error, perturb
from rmtllmf_lib.disentanglement.ratio_test import FOLDED, relative_std, threshold, within_probability
from rmtllmf_lib.disentanglement.wde import images_of, noise_std, wde
from rmtllmf_lib.model.fusion import fuse, lambda_n
from rmtllmf_lib.model.task_vector import cosine_matrix
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.transport.scenario import Scenario

LAMBDAS = (0.2, 0.3, 0.4, 0.5, 0.6)  # tried against the published lambda_N
FEW_IMAGES = 5  # of each task, for derivatives
FEW_TASKS = 3
Z_BETA = 1.96


def _networks(evidence: ModelEvidence) -> dict[str, Network]:
    suite = evidence.suite
    return {
        name: network(suite.backbone, suite.tasks[name].test, suite.heads[name], limit=FEW_IMAGES, device=suite.device)
        for name in list(suite.tasks)[:FEW_TASKS]
    }


def _models(evidence: ModelEvidence) -> Mapping[str, FirstOrder]:
    fused = evidence.suite.fuse(lam=evidence.lam)
    return {name: first_order(net, fused) for name, net in _networks(evidence).items()}


def _std(evidence: ModelEvidence, mse: float, scale: str = "task") -> float:
    return noise_std(mse, evidence.taus, evidence.suite.backbone.weights, evidence.lam, scale=scale)


@measures("Eq. (1)")
def _task_vectors(evidence: ModelEvidence) -> Finding:
    rows = evidence.everything
    own = rows.groupby("task")["reference"].first()
    base = rows[rows["protection"] == "base"].groupby("task")["accuracy"].mean()
    means = {"base": 100 * base.mean(), "own": 100 * own.mean()}
    return graded((own > base).all(), caveat=True, images=rows["images"].max(), **means)


@measures("Eq. (6)")
def _fusion(evidence: ModelEvidence) -> Finding:
    n, published, scores = len(evidence.taus), evidence.lam, {}
    for lam in (*LAMBDAS, published):
        rule = partial(lambda_n, rule="constant", value=lam)
        rows = evidence.evaluated(rule, split="validation", sizes=(n,), limit=2 * evidence.images)
        scores[lam] = float(rows["normalized"].mean())
    lost = max(scores.values()) - scores[published]
    return graded(lost < 0.05, caveat=True, n=n, lam=published, lost=100 * lost)


def _wde_total(evidence: ModelEvidence, own_lam: float | None = None, scenario: Scenario | None = None) -> float:
    suite, lam = evidence.suite, evidence.lam
    fused = None if scenario is None else fuse(suite.backbone.weights, evidence.received(scenario), lam)
    images = images_of(suite, limit=evidence.images)
    return float(wde(suite, images, lam, own_lam, fused=fused)["wde"].mean())


@measures("Eq. (7)")
def _wde(evidence: ModelEvidence) -> Finding:
    suite, lam = evidence.suite, evidence.lam
    name = next(iter(suite.tasks))
    alone = float(wde(suite, images_of(suite, [name], limit=evidence.images), lam)["wde"].item())
    together = _wde_total(evidence)
    return graded(alone == 0 < together, alone=alone, together=together)


@measures("Eq. (8)")
def _indicator(evidence: ModelEvidence) -> Finding:
    fused, specialist = _wde_total(evidence), _wde_total(evidence, own_lam=1.0)
    return Finding("holds with caveat", {"fused": fused, "specialist": specialist})


@measures("Eq. (9)")
def _difference(evidence: ModelEvidence) -> Finding:
    base, lam = evidence.suite.backbone.weights, evidence.lam
    sent, arrived = evidence.taus, evidence.received(Scenario("SR", PAPER_LINKS["SR"].mse))
    delta = fuse(base, arrived, lam).values - fuse(base, sent, lam).values
    errors = lam * torch.stack([one.values - two.values for one, two in zip(arrived, sent, strict=True)]).sum(0)
    off = float((delta - errors).norm() / errors.norm())
    return graded(off < 1e-4)


@measures("Eq. (10)")
def _taylor(evidence: ModelEvidence) -> Finding:
    mse = PAPER_LINKS["ideal"].mse
    stds = [_std(evidence, mse), _std(evidence, mse, "weight")]
    fused = evidence.suite.fuse(lam=evidence.lam)
    generator = torch.Generator().manual_seed(evidence.seed)
    table = linearisation_error(perturb(_networks(evidence), fused, stds, 4, generator=generator))
    small, large = np.sqrt((table["error"] ** 2).groupby(table["std"]).mean().loc[stds])
    return graded(large < VALID, small < VALID, mse=mse, small=100 * small, large=100 * large)


@measures("Eq. (11)")
def _variance(evidence: ModelEvidence) -> Finding:
    mse, rng = PAPER_LINKS["ideal"].mse, evidence.rng()
    std = _std(evidence, mse)
    ratios, shares = [], []
    for model in _models(evidence).values():
        sigma = relative_std(model, std)
        moved = std * model.sample(2000, rng) / model.logits
        measured = np.abs(moved).var(axis=0)
        printed = (model.row_norms / model.logits) ** 2 * mse * len(evidence.suite.taus)
        ratios.append(np.median(printed / measured))
        shares.append(np.mean(measured / sigma**2))
    ratio = np.mean(ratios)
    return graded(0.9 < ratio < 1.1, ratio=ratio, share=np.mean(shares), theory=FOLDED**2)


@measures("Eq. (12)")
def _limit(evidence: ModelEvidence) -> Finding:
    models, kept = _models(evidence).values(), {}
    std, reference = _std(evidence, 1e-6), _std(evidence, PAPER_LINKS["ideal"].mse)
    for reading, at in (("moving", std), ("fixed", reference)):
        inside = []
        for model in models:
            sigma, limit = relative_std(model, std), threshold(Z_BETA, relative_std(model, at))
            inside.append(within_probability(limit, sigma)[sigma < 0.1])
        kept[reading] = float(np.concatenate(inside).mean())
    return graded(kept["moving"] > 0.999, caveat=False, **kept)


@measures("MSE and interference")
def _interference(evidence: ModelEvidence) -> Finding:
    mse, clean = PAPER_LINKS["SR"].mse, _wde_total(evidence)
    task, weight = (_wde_total(evidence, scenario=Scenario("SR", mse, scale, "half")) for scale in ("task", "weight"))
    grows = weight > clean + 0.1
    return graded(grows and task > clean + 0.1, grows, clean=clean, mse=mse, task=task, weight=weight)


@measures("Frozen embeddings")
def _frozen_anyway(evidence: ModelEvidence) -> Finding:
    moved = max(tau.only("embeddings").norm / tau.norm for tau in evidence.taus)
    if moved == 0:
        return Finding("not testable here", {"ours": "the embedded model's fine-tuning leaves the embeddings out"})
    return graded(moved < 0.1, ours=f"at most {100 * moved:.0f} % of a task vector's length")


@measures("Direction")
def _direction(evidence: ModelEvidence) -> Finding:
    """On the scale of task vectors the cosine follows from the MSE; on that of the weights, from their lengths too."""
    kept = {}
    for scale in ("task", "weight"):
        arrived = evidence.received(Scenario("ideal", PAPER_LINKS["ideal"].mse, scale, "half"))
        both = [cosine_matrix([one, two])[0, 1] for one, two in zip(evidence.taus, arrived, strict=True)]
        kept[scale] = float(np.mean(both))
    return graded(kept["weight"] > 0.9, caveat=True, **kept)
