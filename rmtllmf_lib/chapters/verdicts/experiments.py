"""Claims of Sections III to V about accuracies: every number, and every sentence that can be tested."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from rmtllmf_lib import published
from rmtllmf_lib.chapters.verdicts.claims import Claim, Finding, NoIntervalError, Verdict
from rmtllmf_lib.chapters.verdicts.evidence import Evidence, Interval
from rmtllmf_lib.model.fusion import lambda_n
from rmtllmf_lib.model.task_vector import cosine_matrix
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.training.evaluate import evaluate_combinations
from rmtllmf_lib.transport.scenario import Scenario

ATTACKED = ("SU", "SR")
NEAR = 0.1  # in normalised accuracy: as close as another model and other tasks can be expected to come
MODEL = "ViT-B-16-quickgelu"  # the paper's


def _is(scenario: str, protection: str = "rmtllmf", per_class: int | None = None) -> dict[str, Any]:
    """A condition; R-MTLLMF and its parts with ten images per class unless told."""
    few = {} if protection in ("unprotected", "freeze") else {"per_class": per_class or published.PAPER_SAMPLES}
    return {"scenario": scenario, "protection": protection} | few


CONTROL = _is("no link", "control")
CLEAN = _is("clean", "unprotected")


def _points(interval: Interval) -> str:
    """A difference, in points of a hundred."""
    return str(interval).removesuffix(" %")


def _like_paper(found: Interval, paper: float, shape: bool) -> Verdict:
    """Near the paper's number; or the same shape at another; or neither."""
    near = found.low - NEAR <= paper <= found.high + NEAR
    return "holds" if near and shape else "holds with caveat" if shape else "does not hold"


def _baseline(evidence: Evidence) -> Finding:
    told = f"{100 * evidence.clean:.0f} % for the embedded model; published ViT-B/16: 83.0 %"
    if evidence.suite.backbone.name != MODEL:
        return Finding("not testable here", told)
    return Finding("holds" if abs(evidence.clean - published.PAPER_BASELINE) < 0.02 else "does not hold", told)


def _unprotected_ideal(evidence: Evidence) -> Finding:
    found, lost = evidence.point(**_is("ideal", "unprotected")), evidence.gain(CLEAN, _is("ideal", "unprotected"))
    return Finding(_like_paper(found, PAPER_LINKS["ideal"].unprotected[0], lost.low > 0), str(found))


def _unprotected_attacked(evidence: Evidence) -> Finding:
    found = {name: evidence.point(**_is(name, "unprotected")) for name in ATTACKED}
    guess, paper = evidence.guessing, PAPER_LINKS["SR"].unprotected
    told = "; ".join(f"{name} {value}" for name, value in found.items()) + f"; guessing scores {100 * guess:.0f} %"
    if all(paper[0] <= value.mean <= paper[1] for value in found.values()):
        return Finding("holds", told)
    chance = all(value.low < guess + 0.05 for value in found.values())
    return Finding("holds with caveat" if chance else "does not hold", told)


def _rmtllmf_ideal(evidence: Evidence) -> Finding:
    found, lead = evidence.point(**_is("ideal")), evidence.gain(_is("ideal"), CLEAN)
    told = f"{found}; without noise and protection {100 * evidence.clean:.0f} %"
    return Finding(_like_paper(found, PAPER_LINKS["ideal"].rmtllmf, lead.low > -0.05), told)


def _rmtllmf_attacked(evidence: Evidence) -> Finding:
    found = {name: evidence.point(**_is(name)) for name in ATTACKED}
    verdicts = {
        _like_paper(value, PAPER_LINKS[name].rmtllmf, evidence.gain(CLEAN, _is(name)).low > 0)
        for name, value in found.items()
    }
    told = "; ".join(f"{name} {value}" for name, value in found.items())
    return Finding(next(v for v in ("does not hold", "holds with caveat", "holds") if v in verdicts), told)


def _equally(evidence: Evidence) -> Finding:
    """In the paper SR is ahead, by a point and a half, which it takes for equal."""
    apart, paper = evidence.gain(_is("SU"), _is("SR")), PAPER_LINKS["SU"].rmtllmf - PAPER_LINKS["SR"].rmtllmf
    told = f"SU ahead by {_points(apart)} points; in the paper SR is, by {-100 * paper:.1f}"
    if max(abs(apart.low), abs(apart.high)) < 0.05:
        return Finding("holds", told)
    if not apart.low <= 0 <= apart.high and not apart.low <= paper <= apart.high:
        return Finding("does not hold", told)
    return Finding("holds with caveat" if apart.half_width < NEAR else "not testable here", told)


def _factor(evidence: Evidence) -> Finding:
    ratios = sorted(evidence.point(**_is(x)).mean / evidence.point(**_is(x, "unprotected")).mean for x in ATTACKED)
    told = f"{ratios[0]:.1f} and {ratios[1]:.1f} times; "
    told += f"the specialists themselves score {1 / evidence.guessing:.0f} times as much as guessing"
    low, high = published.PAPER_GAIN
    if low <= ratios[0] and ratios[1] <= high:
        return Finding("holds", told)
    better = all(evidence.gain(_is(name), _is(name, "unprotected")).low > 0 for name in ATTACKED)
    return Finding("holds with caveat" if better else "does not hold", told)


def _no_recovery(evidence: Evidence) -> Finding:
    """The sentence explains the loss by interference in what was received: training without it tests that."""
    lost = {name: evidence.gain(CONTROL, _is(name)) for name in ATTACKED}
    own = {name: evidence.point(**_is(name, "noise-aware")) for name in ATTACKED}
    least = min(each.mean for each in own.values())
    told = (
        f"R-MTLLMF does not, but the same training restores {100 * least:.0f} % or more with noise-aware fusion, and "
        f"{evidence.point(**CONTROL)} without any task vector"
    )
    restored = all(each.low > 0 for each in lost.values()) and least > evidence.clean - 0.05
    return Finding("does not hold" if restored else "holds", told)


def _even_small(evidence: Evidence) -> Finding:
    task = evidence.point(**_is("task, SR", "unprotected"))
    weight = evidence.gain(CLEAN, _is("ideal", "unprotected"))
    told = (
        f"on the scale of the weights {_points(weight)} points are lost at MSE .013; on that of the task vectors "
        f"{100 * abs(evidence.clean - task.mean):.0f} points at .21"
    )
    harmful = weight.low > 0
    everywhere = harmful and task.high < evidence.clean - 0.05
    return Finding("holds" if everywhere else "holds with caveat" if harmful else "does not hold", told)


def _against_n(evidence: Evidence) -> Finding:
    means = evidence.results.groupby(["scenario", "protection", "n_tasks"])["normalized"].mean()
    most = evidence.results["n_tasks"].max()
    change = {
        (name, how): means[name, how, most] - means[name, how, 2]
        for name in PAPER_LINKS
        for how in ("unprotected", "rmtllmf")
    }
    steady = change.pop(("ideal", "rmtllmf"))
    told = f"from 2 to {most} tasks R-MTLLMF on the ideal link changes by {100 * steady:+.0f} points, the next best of "
    told += f"the paper's curves by {100 * max(change.values()):+.0f}"
    falls = max(change.values()) < 0.02
    return Finding("holds" if falls and abs(steady) < 0.05 else "does not hold", told)


def _more_tasks(evidence: Evidence) -> Finding:
    suite, n = evidence.suite, len(evidence.suite.taus)
    rows = evaluate_combinations(
        suite.backbone, suite.taus, suite.tasks, suite.heads, lambda_n, sizes=(2, n), limit=evidence.images,
        all_tasks=True, device=suite.device, progress=False,
    )  # fmt: skip
    over_all, fused = (part.groupby("n_tasks")["normalized"].mean() for part in (rows, rows[rows["member"]]))
    told = (
        f"over all tasks {100 * over_all[2]:.0f} % with two fused and {100 * over_all[n]:.0f} % with {n}; over the "
        f"fused ones {100 * fused[2]:.0f} and {100 * fused[n]:.0f} %"
    )
    both = over_all[n] > over_all[2], fused[n] > fused[2]
    return Finding("holds" if all(both) else "holds with caveat" if any(both) else "does not hold", told)


def _cosines(evidence: Evidence, scenario: Scenario) -> np.ndarray:
    base, taus = evidence.suite.backbone.weights, list(evidence.suite.taus.values())
    if scenario.mean_mse:
        taus = scenario.receive(taus, base, generator=torch.Generator().manual_seed(evidence.seed))
    cosines = cosine_matrix(taus)
    return np.asarray(cosines[~np.eye(len(taus), dtype=bool)])


def _cosines_protected(evidence: Evidence) -> Finding:
    sent = _cosines(evidence, Scenario("clean", 0.0)).max()
    ideal = _cosines(evidence, Scenario("ideal", PAPER_LINKS["ideal"].mse, "weight", "half")).max()
    told = f"{ideal:.2f} as received under the noise that gives Figure 4, and {sent:.2f} as sent"
    return Finding("holds" if ideal <= published.PAPER_COSINES_PROTECTED else "does not hold", told)


def _cosines_attacked(evidence: Evidence) -> Finding:
    mse, (low, high) = PAPER_LINKS["SR"].mse, published.PAPER_COSINES_ATTACKED
    half, own = (_cosines(evidence, Scenario("SR", mse, "weight", how)) for how in ("half", "independent"))
    told = f"{half.min():.2f} to {half.max():.2f} with half common errors, {abs(own).max():.2f} with independent ones"
    inside = [low <= each.min() and each.max() <= high for each in (half, own)]
    return Finding("holds" if all(inside) else "holds with caveat" if any(inside) else "does not hold", told)


def _entanglement(evidence: Evidence) -> Finding:
    """If cosines explained the collapse, errors that lower the cosines would do no harm."""
    own = _cosines(evidence, Scenario("SR", PAPER_LINKS["SR"].mse, "weight", "independent"))
    lost = evidence.gain(CLEAN, _is("independent, SR", "unprotected"))
    told = (
        f"with independent errors cosines are at most {abs(own).max():.2f}, and still {_points(lost)} points are lost"
    )
    return Finding("does not hold" if lost.low > 0.1 and abs(own).max() < 0.1 else "holds", told)


def _reloading(evidence: Evidence) -> Finding:
    gains = {name: evidence.gain(_is(name, "freeze"), _is(name, "unprotected")) for name in PAPER_LINKS}
    told = ", ".join(f"{name} {_points(each)}" for name, each in gains.items()) + " points more"
    kept = min(evidence.point(**_is(name, "freeze")).high for name in ATTACKED) > evidence.clean - 0.2
    helps = gains["ideal"].low > 0
    return Finding("holds" if helps and kept else "holds with caveat" if helps else "does not hold", told)


def _safeguards(evidence: Evidence) -> Finding:
    leads = {name: evidence.gain(_is(name), CONTROL) for name in PAPER_LINKS}
    told = "against the base realigned without task vectors: " + ", ".join(
        f"{name} {_points(each)}" for name, each in leads.items()
    )
    return Finding("holds" if all(each.low > 0 for each in leads.values()) else "does not hold", told + " points")


def _alone(evidence: Evidence, how: str) -> Finding:
    """One part without the other, on the ideal link, for which the paper's figure is; told for SR, too."""
    gains = {link: evidence.gain(_is(link), _is(link, how)) for link in ("ideal", "SR")}
    level = {link: evidence.point(**_is(link)).mean for link in gains}
    told = ", ".join(
        f"{100 * gain.mean / level[link]:.0f} % ({link}, {_points(gain)} points)" for link, gain in gains.items()
    )
    found, (low, high) = gains["ideal"], published.PAPER_ABLATION_LOSS
    if found.high / level["ideal"] < low:
        return Finding("does not hold", told)
    if found.low <= 0:
        return Finding("not testable here", told)
    return Finding("holds" if low <= found.mean / level["ideal"] <= high else "holds with caveat", told)


def _kept_frozen(evidence: Evidence) -> Finding:
    """Clean embeddings, and then keeping them: the paper's sentence is about the second."""
    links = ("ideal", "SR")
    clean = [evidence.gain(_is(link, "reload-train-all"), _is(link, "realign")) for link in links]
    frozen = [evidence.gain(_is(link), _is(link, "reload-train-all")) for link in links]
    shown = [" and ".join(f"{_points(each)}" for each in some) for some in (clean, frozen)]
    told = f"ideal and SR: reloading brings {shown[0]} points, freezing them afterwards {shown[1]}"
    if all(each.low > 0 for each in frozen):
        return Finding("holds", told)
    if not any(each.low > 0 or each.high < 0 for each in frozen):
        return Finding("not testable here", told)
    return Finding("holds with caveat" if any(each.low > 0 for each in frozen) else "does not hold", told)


def _samples(evidence: Evidence) -> Finding:
    n = published.PAPER_SAMPLES
    more = evidence.gain(_is("ideal", per_class=2 * n), _is("ideal"))
    before = evidence.gain(_is("ideal"), _is("ideal", per_class=n // 2))
    told = f"from {n // 2} to {n} {_points(before)} points, from {n} to {2 * n} {_points(more)}"
    if more.mean >= before.mean or more.mean >= 0.05:
        return Finding("does not hold", told)
    return Finding("holds" if more.high < before.low else "holds with caveat", told)


def _samples_alone(evidence: Evidence) -> Finding:
    n = published.PAPER_SAMPLES
    both = evidence.gain(_is("ideal", per_class=2 * n), _is("ideal"))
    single = evidence.gain(_is("ideal", "realign", 2 * n), _is("ideal", "realign"))
    told = f"from {n} to {2 * n} {_points(both)} points with both, {_points(single)} with realignment alone"
    if both.high < single.low:
        return Finding("holds", told)
    return Finding("does not hold" if both.low > single.high else "not testable here", told)


def _without_training(evidence: Evidence) -> Finding:
    rows = evidence.everything
    steps = {how: int(rows.loc[rows["protection"] == how, "steps"].max()) for how in ("unprotected", "rmtllmf")}
    samples = int(rows.loc[(rows["protection"] == "rmtllmf") & (rows["per_class"] == 10), "samples"].max())
    told = f"fusion takes {steps['unprotected']} steps of training; R-MTLLMF {steps['rmtllmf']}, on {samples} images"
    return Finding("holds" if steps["rmtllmf"] == 0 else "holds with caveat", told)


def _less_interference(evidence: Evidence) -> Finding:
    """Judged by the WDE against the tasks' own specialists."""
    table = over_seeds(evidence.wde, ["scenario", "protection"], "wde").set_index(["scenario", "protection"])
    told = "; ".join(
        f"{link} from {table.loc[(link, 'unprotected'), 'mean']:.2f} to {table.loc[(link, 'rmtllmf'), 'mean']:.2f}"
        for link in ("ideal", "SR")
    )
    if table["half_width"].isna().any():
        raise NoIntervalError
    low, high = table["mean"] - table["half_width"], table["mean"] + table["half_width"]
    falls = all(high[link, "rmtllmf"] < low[link, "unprotected"] for link in ("ideal", "SR"))
    repaired = low["SR", "rmtllmf"] < 2 * table.loc[("clean", "unprotected"), "mean"]
    clean = table.loc[("clean", "unprotected"), "mean"]
    told = f"WDE a task against the specialists, on the link {told}; {clean:.2f} without noise"
    return Finding("holds" if falls and repaired else "holds with caveat" if falls else "does not hold", told)


def _physical_layer(evidence: Evidence) -> Finding:
    gain = evidence.gain(_is("link, SU known"), _is("link, SU unknown"))
    told = f"a receiver that knows the jammer of SU: {_points(gain)} points more"
    return Finding("holds" if gain.low > 0 else "does not hold", told)


_FIGURE2 = "({numref}`fig-noisy-fusion`)"
_LINK = "({numref}`fig-link-fusion`)"
_MEMORY = "({numref}`fig-abl-memory`)"
_COSINES = "({numref}`fig-int-noise`)"
_WDE = "({numref}`fig-int-wde`)"

CLAIMS = (
    Claim("Reloading", "III", "Reloading the embeddings stabilises the model.", "", _MEMORY, _reloading),
    Claim(
        "Baseline", "IV-1", "Normalised accuracy of eight tasks fused without noise.", "91.2 %",
        "({numref}`fig-fusion`)", _baseline,
    ),
    Claim(
        "Unprotected, ideal", "IV-1", "The fused model fails already without a jammer.", "36.3 %", _FIGURE2,
        _unprotected_ideal,
    ),
    Claim(
        "Unprotected, attacked", "IV-1", "Under both attacks it collapses.", "4–6 %", _FIGURE2, _unprotected_attacked,
    ),
    Claim(
        "R-MTLLMF, ideal", "IV-1", "Protected, it is close to the baseline (also in V).", "89.1 %", _FIGURE2,
        _rmtllmf_ideal,
    ),
    Claim(
        "R-MTLLMF, attacked", "IV-1", "Under attack it cannot fully compensate for the noise (also in V).",
        "SU 53.3 %, SR 54.8 %", _FIGURE2, _rmtllmf_attacked,
    ),
    Claim("SU and SR", "IV-1", "Both attacks degrade R-MTLLMF equally.", "1.5 points apart", _FIGURE2, _equally),
    Claim(
        "Factor", "IV-1", "Under attack R-MTLLMF is so many times better than no protection (also in IV-3).", "9–14",
        _FIGURE2, _factor,
    ),
    Claim(
        "Limits", "IV-1", "Under attack interference is too high for frozen embeddings and few-shot training to "
        "restore the model.", "", "({numref}`fig-noisy-fusion`, {numref}`fig-abl-lambda`)", _no_recovery,
    ),
    Claim("Small noise", "IV-1", "Noise, even if small, may be detrimental.", "", _LINK, _even_small),
    Claim(
        "Number of tasks", "IV-1", "Accuracy does not rise with the number of tasks; only R-MTLLMF on the ideal link "
        "holds its level.", "", _FIGURE2, _against_n,
    ),
    Claim(
        "Cosines, Fig. 3", "IV-2", "R-MTLLMF keeps task vectors nearly orthogonal (also in V).", "at most .24",
        "({numref}`fig-int-definitions`)", _cosines_protected,
    ),
    Claim(
        "Cosines, Fig. 4", "IV-2", "Under SR all task vectors are partly aligned.", ".48–.52", _COSINES,
        _cosines_attacked,
    ),
    Claim("Entanglement", "IV-2", "The collapse is explained by these cosines.", "", _WDE, _entanglement),
    Claim(
        "Reloading alone", "IV-3", "Without realignment the model is so much worse than R-MTLLMF.", "21–53 %", _MEMORY,
        partial(_alone, how="freeze"),
    ),
    Claim(
        "Realignment alone", "IV-3", "Without reloading, too.", "21–53 %", _MEMORY,
        partial(_alone, how="realign"),
    ),
    Claim(
        "Kept frozen", "IV-3", "Realignment works better while the embeddings stay frozen.", "", _MEMORY,
        _kept_frozen,
    ),
    Claim("Samples", "IV-3", "More samples per class than this add little.", "10", _MEMORY, _samples),
    Claim(
        "Samples, both", "IV-3", "That is so above all with both parts, less so with realignment alone.", "", _MEMORY,
        _samples_alone,
    ),
    Claim(
        "More tasks", "IV-3", "Fusion improves the average performance as the number of tasks grows.", "",
        "({numref}`fig-fusion`)", _more_tasks,
    ),
    Claim(
        "Without re-training", "V", "Fusion builds a multi-task model without re-training.", "", "({eq}`eq-fusion`)",
        _without_training,
    ),
    Claim(
        "Resilient aggregation", "V", "R-MTLLMF makes the aggregation of task vectors resilient.", "", _FIGURE2,
        _safeguards,
    ),
    Claim(
        "Less interference", "V", "R-MTLLMF effectively decreases cross-task interference.", "",
        _WDE, _less_interference,
    ),
    Claim("Physical layer", "V", "Protection on the physical layer could add to it.", "", _LINK, _physical_layer),
)  # fmt: skip
