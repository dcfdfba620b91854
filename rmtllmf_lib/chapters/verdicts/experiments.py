"""Claims of Sections III to V about accuracies: every number, and every sentence that can be tested."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from rmtllmf_lib import published
from rmtllmf_lib.chapters.verdicts.claims import Finding, NoIntervalError, Verdict, graded, measures
from rmtllmf_lib.chapters.verdicts.evidence import Evidence, Interval
from rmtllmf_lib.model.fusion import lambda_n
from rmtllmf_lib.model.task_vector import cosine_matrix
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.study.intervals import over_seeds
from rmtllmf_lib.transport.scenario import Scenario

ATTACKED = ("SU", "SR")
NEAR = 0.1  # in normalised accuracy: as close as another model and other tasks can be expected to come
MODEL = "ViT-B-16-quickgelu"  # the paper's


def _is(scenario: str, protection: str = "rmtllmf", per_class: int | None = None) -> dict[str, Any]:
    """Return a condition; by default with the paper's ten images per class where the protection has a memory."""
    few = {} if protection in ("unprotected", "freeze") else {"per_class": per_class or published.PAPER_SAMPLES}
    return {"scenario": scenario, "protection": protection} | few


CONTROL = _is("no link", "control")
CLEAN = _is("clean", "unprotected")


def _like_paper(found: Interval, paper: float, shape: bool) -> Verdict:
    """Return whether a value is near the paper's and has the shape of its result, the shape alone, or neither."""
    near = found.low - NEAR <= paper <= found.high + NEAR
    return "holds" if near and shape else "holds with caveat" if shape else "does not hold"


@measures("Reloading")
def _reloading(evidence: Evidence) -> Finding:
    gains = {name: evidence.gain(_is(name, "freeze"), _is(name, "unprotected")) for name in PAPER_LINKS}
    summary = ", ".join(f"{name} {each.points}" for name, each in gains.items()) + " points more"
    kept = min(evidence.point(**_is(name, "freeze")).high for name in ATTACKED) > evidence.clean - 0.2
    helps = gains["ideal"].low > 0
    return graded(summary, helps and kept, helps)


@measures("Baseline")
def _baseline(evidence: Evidence) -> Finding:
    summary = f"{100 * evidence.clean:.0f} % for the embedded model; published ViT-B/16: 83.0 %"
    if evidence.suite.backbone.name != MODEL:
        return Finding("not testable here", summary)
    return graded(summary, abs(evidence.clean - published.PAPER_BASELINE) < 0.02)


@measures("Unprotected, ideal")
def _unprotected_ideal(evidence: Evidence) -> Finding:
    found, lost = evidence.point(**_is("ideal", "unprotected")), evidence.gain(CLEAN, _is("ideal", "unprotected"))
    return Finding(_like_paper(found, PAPER_LINKS["ideal"].unprotected[0], lost.low > 0), str(found))


@measures("Unprotected, attacked")
def _unprotected_attacked(evidence: Evidence) -> Finding:
    found = {name: evidence.point(**_is(name, "unprotected")) for name in ATTACKED}
    guess, paper = evidence.guessing, PAPER_LINKS["SR"].unprotected
    summary = "; ".join(f"{name} {value}" for name, value in found.items()) + f"; guessing scores {100 * guess:.0f} %"
    if all(paper[0] <= value.mean <= paper[1] for value in found.values()):
        return Finding("holds", summary)
    chance = all(value.low < guess + 0.05 for value in found.values())
    return Finding("holds with caveat" if chance else "does not hold", summary)


@measures("R-MTLLMF, ideal")
def _rmtllmf_ideal(evidence: Evidence) -> Finding:
    found, lead = evidence.point(**_is("ideal")), evidence.gain(_is("ideal"), CLEAN)
    summary = f"{found}; without noise and protection {100 * evidence.clean:.0f} %"
    return Finding(_like_paper(found, PAPER_LINKS["ideal"].rmtllmf, lead.low > -0.05), summary)


@measures("R-MTLLMF, attacked")
def _rmtllmf_attacked(evidence: Evidence) -> Finding:
    found = {name: evidence.point(**_is(name)) for name in ATTACKED}
    verdicts = {
        _like_paper(value, PAPER_LINKS[name].rmtllmf, evidence.gain(CLEAN, _is(name)).low > 0)
        for name, value in found.items()
    }
    summary = "; ".join(f"{name} {value}" for name, value in found.items())
    return Finding(next(v for v in ("does not hold", "holds with caveat", "holds") if v in verdicts), summary)


@measures("SU and SR")
def _equally(evidence: Evidence) -> Finding:
    """Allow a difference as large as the paper's, in which SR is ahead by a point and a half."""
    apart, paper = evidence.gain(_is("SU"), _is("SR")), PAPER_LINKS["SU"].rmtllmf - PAPER_LINKS["SR"].rmtllmf
    summary = f"SU ahead by {apart.points} points; in the paper SR is, by {-100 * paper:.1f}"
    if max(abs(apart.low), abs(apart.high)) < 0.05:
        return Finding("holds", summary)
    if not apart.low <= 0 <= apart.high and not apart.low <= paper <= apart.high:
        return Finding("does not hold", summary)
    return Finding("holds with caveat" if apart.half_width < NEAR else "not testable here", summary)


@measures("Factor")
def _factor(evidence: Evidence) -> Finding:
    ratios = sorted(evidence.point(**_is(x)).mean / evidence.point(**_is(x, "unprotected")).mean for x in ATTACKED)
    summary = f"{ratios[0]:.1f} and {ratios[1]:.1f} times; "
    summary += f"the specialists themselves score {1 / evidence.guessing:.0f} times as much as guessing"
    low, high = published.PAPER_GAIN
    if low <= ratios[0] and ratios[1] <= high:
        return Finding("holds", summary)
    better = all(evidence.gain(_is(name), _is(name, "unprotected")).low > 0 for name in ATTACKED)
    return Finding("holds with caveat" if better else "does not hold", summary)


@measures("Limits")
def _no_recovery(evidence: Evidence) -> Finding:
    """Test the paper's reason, interference in what was received, by training without it."""
    lost = {name: evidence.gain(CONTROL, _is(name)) for name in ATTACKED}
    own = {name: evidence.point(**_is(name, "noise-aware")) for name in ATTACKED}
    least = min(each.mean for each in own.values())
    summary = (
        f"R-MTLLMF does not, but the same training restores {100 * least:.0f} % or more with noise-aware fusion, and "
        f"{evidence.point(**CONTROL)} without any task vector"
    )
    restored = all(each.low > 0 for each in lost.values()) and least > evidence.clean - 0.05
    return Finding("does not hold" if restored else "holds", summary)


@measures("Small noise")
def _even_small(evidence: Evidence) -> Finding:
    task = evidence.point(**_is("task, SR", "unprotected"))
    weight = evidence.gain(CLEAN, _is("ideal", "unprotected"))
    summary = (
        f"on the scale of the weights {weight.points} points are lost at MSE .013; on that of the task vectors "
        f"{100 * abs(evidence.clean - task.mean):.0f} points at .21"
    )
    harmful = weight.low > 0
    everywhere = harmful and task.high < evidence.clean - 0.05
    return graded(summary, everywhere, harmful)


@measures("Number of tasks")
def _against_n(evidence: Evidence) -> Finding:
    means = evidence.results.groupby(["scenario", "protection", "n_tasks"])["normalized"].mean()
    most = evidence.results["n_tasks"].max()
    change = {
        (name, how): means[name, how, most] - means[name, how, 2]
        for name in PAPER_LINKS
        for how in ("unprotected", "rmtllmf")
    }
    steady = change.pop(("ideal", "rmtllmf"))
    summary = (
        f"from 2 to {most} tasks R-MTLLMF on the ideal link changes by {100 * steady:+.0f} points, the next best of "
    )
    summary += f"the paper's curves by {100 * max(change.values()):+.0f}"
    falls = max(change.values()) < 0.02
    return graded(summary, falls and abs(steady) < 0.05)


def _cosines(evidence: Evidence, scenario: Scenario) -> np.ndarray:
    """Return the cosines of every two task vectors after a link."""
    cosines = cosine_matrix(evidence.received(scenario) if scenario.mean_mse else evidence.taus)
    return np.asarray(cosines[~np.eye(len(cosines), dtype=bool)])


@measures("Cosines, Fig. 3")
def _cosines_protected(evidence: Evidence) -> Finding:
    sent = _cosines(evidence, Scenario("clean", 0.0)).max()
    ideal = _cosines(evidence, Scenario("ideal", PAPER_LINKS["ideal"].mse, "weight", "half")).max()
    summary = f"{ideal:.2f} as received under the noise that gives Figure 4, and {sent:.2f} as sent"
    return graded(summary, ideal <= published.PAPER_COSINES_PROTECTED)


@measures("Cosines, Fig. 4")
def _cosines_attacked(evidence: Evidence) -> Finding:
    mse, (low, high) = PAPER_LINKS["SR"].mse, published.PAPER_COSINES_ATTACKED
    half, own = (_cosines(evidence, Scenario("SR", mse, "weight", how)) for how in ("half", "independent"))
    summary = (
        f"{half.min():.2f} to {half.max():.2f} with half common errors, {abs(own).max():.2f} with independent ones"
    )
    inside = [low <= each.min() and each.max() <= high for each in (half, own)]
    return graded(summary, all(inside), any(inside))


@measures("Entanglement")
def _entanglement(evidence: Evidence) -> Finding:
    """Test whether errors that lower the cosines do harm: if cosines explained the collapse, they would not."""
    own = _cosines(evidence, Scenario("SR", PAPER_LINKS["SR"].mse, "weight", "independent"))
    lost = evidence.gain(CLEAN, _is("independent, SR", "unprotected"))
    summary = (
        f"with independent errors cosines are at most {abs(own).max():.2f}, and still {lost.points} points are lost"
    )
    return Finding("does not hold" if lost.low > 0.1 and abs(own).max() < 0.1 else "holds", summary)


def _alone(evidence: Evidence, how: str) -> Finding:
    """Judge one part without the other on the ideal link, to which the paper's figure belongs; report SR as well."""
    gains = {link: evidence.gain(_is(link), _is(link, how)) for link in ("ideal", "SR")}
    level = {link: evidence.point(**_is(link)).mean for link in gains}
    summary = ", ".join(
        f"{100 * gain.mean / level[link]:.0f} % ({link}, {gain.points} points)" for link, gain in gains.items()
    )
    found, (low, high) = gains["ideal"], published.PAPER_ABLATION_LOSS
    if found.high / level["ideal"] < low:
        return Finding("does not hold", summary)
    if found.low <= 0:
        return Finding("not testable here", summary)
    return Finding("holds" if low <= found.mean / level["ideal"] <= high else "holds with caveat", summary)


measures("Reloading alone")(partial(_alone, how="freeze"))
measures("Realignment alone")(partial(_alone, how="realign"))


@measures("Kept frozen")
def _kept_frozen(evidence: Evidence) -> Finding:
    """Separate clean embeddings from keeping them frozen; the paper's sentence is about the second."""
    links = ("ideal", "SR")
    clean = [evidence.gain(_is(link, "reload-train-all"), _is(link, "realign")) for link in links]
    frozen = [evidence.gain(_is(link), _is(link, "reload-train-all")) for link in links]
    shown = [" and ".join(each.points for each in some) for some in (clean, frozen)]
    summary = f"ideal and SR: reloading brings {shown[0]} points, freezing them afterwards {shown[1]}"
    if all(each.low > 0 for each in frozen):
        return Finding("holds", summary)
    if not any(each.low > 0 or each.high < 0 for each in frozen):
        return Finding("not testable here", summary)
    return Finding("holds with caveat" if any(each.low > 0 for each in frozen) else "does not hold", summary)


@measures("Samples")
def _samples(evidence: Evidence) -> Finding:
    n = published.PAPER_SAMPLES
    more = evidence.gain(_is("ideal", per_class=2 * n), _is("ideal"))
    before = evidence.gain(_is("ideal"), _is("ideal", per_class=n // 2))
    summary = f"from {n // 2} to {n} {before.points} points, from {n} to {2 * n} {more.points}"
    if more.mean >= before.mean or more.mean >= 0.05:
        return Finding("does not hold", summary)
    return Finding("holds" if more.high < before.low else "holds with caveat", summary)


@measures("Samples, both")
def _samples_alone(evidence: Evidence) -> Finding:
    n = published.PAPER_SAMPLES
    both = evidence.gain(_is("ideal", per_class=2 * n), _is("ideal"))
    single = evidence.gain(_is("ideal", "realign", 2 * n), _is("ideal", "realign"))
    summary = f"from {n} to {2 * n} {both.points} points with both, {single.points} with realignment alone"
    if both.high < single.low:
        return Finding("holds", summary)
    return Finding("does not hold" if both.low > single.high else "not testable here", summary)


@measures("More tasks")
def _more_tasks(evidence: Evidence) -> Finding:
    n = len(evidence.taus)
    rows = evidence.evaluated(lambda_n, sizes=(2, n), limit=evidence.images, all_tasks=True)
    over_all, fused = (part.groupby("n_tasks")["normalized"].mean() for part in (rows, rows[rows["member"]]))
    summary = (
        f"over all tasks {100 * over_all[2]:.0f} % with two fused and {100 * over_all[n]:.0f} % with {n}; over the "
        f"fused ones {100 * fused[2]:.0f} and {100 * fused[n]:.0f} %"
    )
    both = over_all[n] > over_all[2], fused[n] > fused[2]
    return graded(summary, all(both), any(both))


@measures("Without re-training")
def _without_training(evidence: Evidence) -> Finding:
    rows = evidence.everything
    steps = {how: int(rows.loc[rows["protection"] == how, "steps"].max()) for how in ("unprotected", "rmtllmf")}
    samples = int(rows.loc[(rows["protection"] == "rmtllmf") & (rows["per_class"] == 10), "samples"].max())
    summary = f"fusion takes {steps['unprotected']} steps of training; R-MTLLMF {steps['rmtllmf']}, on {samples} images"
    return Finding("holds" if steps["rmtllmf"] == 0 else "holds with caveat", summary)


@measures("Resilient aggregation")
def _safeguards(evidence: Evidence) -> Finding:
    leads = {name: evidence.gain(_is(name), CONTROL) for name in PAPER_LINKS}
    summary = "against the base realigned without task vectors: " + ", ".join(
        f"{name} {each.points}" for name, each in leads.items()
    )
    return graded(summary + " points", all(each.low > 0 for each in leads.values()))


@measures("Less interference")
def _less_interference(evidence: Evidence) -> Finding:
    """Judge by the WDE against the tasks' own specialists."""
    table = over_seeds(evidence.wde, ["scenario", "protection"], "wde").set_index(["scenario", "protection"])
    summary = "; ".join(
        f"{link} from {table.loc[(link, 'unprotected'), 'mean']:.2f} to {table.loc[(link, 'rmtllmf'), 'mean']:.2f}"
        for link in ("ideal", "SR")
    )
    if table["half_width"].isna().any():
        raise NoIntervalError
    low, high = table["mean"] - table["half_width"], table["mean"] + table["half_width"]
    falls = all(high[link, "rmtllmf"] < low[link, "unprotected"] for link in ("ideal", "SR"))
    repaired = low["SR", "rmtllmf"] < 2 * table.loc[("clean", "unprotected"), "mean"]
    clean = table.loc[("clean", "unprotected"), "mean"]
    summary = f"WDE a task against the specialists, on the link {summary}; {clean:.2f} without noise"
    return graded(summary, falls and repaired, falls)


@measures("Physical layer")
def _physical_layer(evidence: Evidence) -> Finding:
    gain = evidence.gain(_is("link, SU known"), _is("link, SU unknown"))
    summary = f"a receiver that knows the jammer of SU: {gain.points} points more"
    return graded(summary, gain.low > 0)
