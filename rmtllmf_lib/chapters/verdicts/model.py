"""Claims about the fused model: Eqs. (1) and (6), Section II-B, and what Section III takes for granted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from rmtllmf_lib.chapters.verdicts.claims import Finding, graded, measures
from rmtllmf_lib.chapters.verdicts.evidence import Evidence
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


def _networks(evidence: Evidence) -> dict[str, Network]:
    suite = evidence.suite
    return {
        name: network(suite.backbone, suite.tasks[name].test, suite.heads[name], limit=FEW_IMAGES, device=suite.device)
        for name in list(suite.tasks)[:FEW_TASKS]
    }


def _models(evidence: Evidence) -> Mapping[str, FirstOrder]:
    fused = evidence.suite.fuse(lam=evidence.lam)
    return {name: first_order(net, fused) for name, net in _networks(evidence).items()}


def _std(evidence: Evidence, mse: float, scale: str = "task") -> float:
    return noise_std(mse, evidence.taus, evidence.suite.backbone.weights, evidence.lam, scale=scale)


@measures("Eq. (1)")
def _task_vectors(evidence: Evidence) -> Finding:
    rows = evidence.everything
    own = rows.groupby("task")["reference"].first()
    base = rows[rows["protection"] == "base"].groupby("task")["accuracy"].mean()
    summary = f"added to the base it raises accuracy from {100 * base.mean():.0f} % to {100 * own.mean():.0f} %"
    summary += f", on {rows['images'].max()} test images a task"
    return graded(summary, (own > base).all(), caveat=True)


@measures("Eq. (6)")
def _fusion(evidence: Evidence) -> Finding:
    n, published, scores = len(evidence.taus), evidence.lam, {}
    for lam in (*LAMBDAS, published):
        rule = partial(lambda_n, rule="constant", value=lam)
        rows = evidence.evaluated(rule, split="validation", sizes=(n,), limit=2 * evidence.images)
        scores[lam] = float(rows["normalized"].mean())
    lost = max(scores.values()) - scores[published]
    summary = f"the published value for {n} tasks, {published:.2f}, loses {100 * lost:.0f} points on validation images"
    return graded(summary, lost < 0.05, caveat=True)


def _wde_total(evidence: Evidence, own_lam: float | None = None, scenario: Scenario | None = None) -> float:
    suite, lam = evidence.suite, evidence.lam
    fused = None if scenario is None else fuse(suite.backbone.weights, evidence.received(scenario), lam)
    images = images_of(suite, limit=evidence.images)
    return float(wde(suite, images, lam, own_lam, fused=fused)["wde"].mean())


@measures("Eq. (7)")
def _wde(evidence: Evidence) -> Finding:
    suite, lam = evidence.suite, evidence.lam
    name = next(iter(suite.tasks))
    alone = float(wde(suite, images_of(suite, [name], limit=evidence.images), lam)["wde"].item())
    together = _wde_total(evidence)
    summary = f"{alone:.2f} for a task alone, {together:.2f} a task for all of them"
    return graded(summary, alone == 0 < together)


@measures("Eq. (8)")
def _indicator(evidence: Evidence) -> Finding:
    fused, specialist = _wde_total(evidence), _wde_total(evidence, own_lam=1.0)
    summary = rf"$\ne$ is missing; {fused:.2f} with $\lambda_i = \lambda_N$, {specialist:.2f} with $\lambda_i = 1$"
    return Finding("holds with caveat", summary)


@measures("Eq. (9)")
def _difference(evidence: Evidence) -> Finding:
    base, lam = evidence.suite.backbone.weights, evidence.lam
    sent, arrived = evidence.taus, evidence.received(Scenario("SR", PAPER_LINKS["SR"].mse))
    delta = fuse(base, arrived, lam).values - fuse(base, sent, lam).values
    errors = lam * torch.stack([one.values - two.values for one, two in zip(arrived, sent, strict=True)]).sum(0)
    off = float((delta - errors).norm() / errors.norm())
    return graded("exact, to rounding", off < 1e-4)


@measures("Eq. (10)")
def _taylor(evidence: Evidence) -> Finding:
    mse = PAPER_LINKS["ideal"].mse
    stds = [_std(evidence, mse), _std(evidence, mse, "weight")]
    fused = evidence.suite.fuse(lam=evidence.lam)
    generator = torch.Generator().manual_seed(evidence.seed)
    table = linearisation_error(perturb(_networks(evidence), fused, stds, 4, generator=generator))
    small, large = np.sqrt((table["error"] ** 2).groupby(table["std"]).mean().loc[stds])
    summary = (
        f"at MSE {mse:g}, independent across users, the error is {100 * small:.0f} % on the scale of task vectors, "
    )
    summary += f"{100 * large:.0f} % on that of the weights"
    return graded(summary, large < VALID, small < VALID)


@measures("Eq. (11)")
def _variance(evidence: Evidence) -> Finding:
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
    summary = (
        f"{np.mean(ratios):.0e} times too large in parameter units; with the factors "
        rf"$\lambda_N^2 a_q^2$ the share is {np.mean(shares):.2f}, where theory says {FOLDED**2:.2f}"
    )
    return graded(summary, 0.9 < np.mean(ratios) < 1.1)


@measures("Eq. (12)")
def _limit(evidence: Evidence) -> Finding:
    models, kept = _models(evidence).values(), {}
    reference = _std(evidence, PAPER_LINKS["ideal"].mse)
    for mse in (PAPER_LINKS["ideal"].mse, 1e-6):
        for reading in ("moving", "fixed"):
            inside = []
            for model in models:
                sigma = relative_std(model, _std(evidence, mse))
                limit = threshold(Z_BETA, sigma if reading == "moving" else relative_std(model, reference))
                inside.append(within_probability(limit, sigma)[sigma < 0.1])
            kept[reading, mse] = float(np.concatenate(inside).mean())
    summary = f"stays at {kept['moving', 1e-6]:.2f} however small the MSE; {kept['fixed', 1e-6]:.2f} if $T$ is fixed"
    return graded(summary, kept["moving", 1e-6] > 0.999)


@measures("MSE and interference")
def _interference(evidence: Evidence) -> Finding:
    mse, clean = PAPER_LINKS["SR"].mse, _wde_total(evidence)
    task, weight = (_wde_total(evidence, scenario=Scenario("SR", mse, scale, "half")) for scale in ("task", "weight"))
    summary = f"WDE a task {clean:.2f} without noise; at MSE {mse:g} {task:.2f} on the scale of task vectors, "
    summary += f"{weight:.2f} on that of the weights"
    grows = weight > clean + 0.1
    return graded(summary, grows and task > clean + 0.1, grows)


@measures("Frozen embeddings")
def _frozen_anyway(evidence: Evidence) -> Finding:
    moved = max(tau.only("embeddings").norm / tau.norm for tau in evidence.taus)
    if moved == 0:
        return Finding("not testable here", "the embedded model's fine-tuning leaves the embeddings out")
    return graded(f"at most {100 * moved:.0f} % of a task vector's length", moved < 0.1)


@measures("Direction")
def _direction(evidence: Evidence) -> Finding:
    kept = {}
    for scale in ("task", "weight"):
        arrived = evidence.received(Scenario("ideal", PAPER_LINKS["ideal"].mse, scale, "half"))
        both = [cosine_matrix([one, two])[0, 1] for one, two in zip(evidence.taus, arrived, strict=True)]
        kept[scale] = float(np.mean(both))
    summary = (
        f"cosine with what was sent {kept['task']:.2f} on the scale of task vectors, {kept['weight']:.2f} of weights"
    )
    largely = {scale: value > 0.9 for scale, value in kept.items()}
    return graded(summary, all(largely.values()), largely["task"])
