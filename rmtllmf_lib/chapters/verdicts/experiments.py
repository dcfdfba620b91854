"""Claims of Sections III to V about accuracies: every number, and every sentence that can be tested."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from rmtllmf_lib import published
from rmtllmf_lib.chapters.verdicts.claims import VERDICTS, Finding, UntestableError, Verdict, graded, measures
from rmtllmf_lib.chapters.verdicts.comparisons import Comparison, all_of, any_of
from rmtllmf_lib.chapters.verdicts.evidence import Interval, ModelEvidence, at_least_three
from rmtllmf_lib.chapters.words import where_sure
from rmtllmf_lib.fusion.arithmetic import lambda_n
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.study.study import NO_LINK
from rmtllmf_lib.training.finetune import recipe_for

SLOW = 0.05  # loss of normalised accuracy for each task that is added; published ones lose at most .043
ATTACKED = ("SU", "SR")
ABLATED = ("ideal", "SR")  # the links on which the method is taken apart
APART_AND_COMMON = ("weight, independent", "task, common")  # noise that lowers cosines, and noise that raises them
CLOSE = 0.05  # in normalised accuracy: no further behind the clean fusion, R-MTLLMF is close to it
NEAR = 0.1  # in normalised accuracy: as close as another model and other tasks can be expected to come
MODEL = "ViT-B-16-quickgelu"  # the paper's


def _is(scenario: str, protection: str = "rmtllmf", per_class: int | None = None) -> dict[str, Any]:
    """Return a condition; by default with the paper's ten images per class where the protection has a memory."""
    few = {} if protection in ("unprotected", "freeze") else {"per_class": per_class or published.PAPER_SAMPLES}
    return {"scenario": scenario, "protection": protection} | few


CONTROL = _is("no link", "control")
CLEAN = _is("clean", "unprotected")


def _own_errors(evidence: ModelEvidence, protection: str, links: Iterable[str] = PAPER_LINKS) -> dict[str, Interval]:
    """Return the accuracies where users' errors are independent, the mildest reading of the paper's noise."""
    return {name: evidence.point(**_is(f"independent, {name}", protection)) for name in links}


def _like_paper(found: Interval, paper: float, shape: Comparison) -> Verdict:
    """Return whether a value is near the paper's and has the shape of its result, the shape alone, or neither."""
    near = found.low - NEAR <= paper <= found.high + NEAR
    return "holds" if near and shape else "holds with caveat" if shape else "does not hold"


@measures("Reloading")
def _reloading(evidence: ModelEvidence) -> Finding:
    gains = {name: evidence.gain(_is(name, "freeze"), _is(name, "unprotected")) for name in ABLATED}
    left = evidence.point(**_is("SR", "freeze"))
    helps, little = gains["ideal"].above(), left.below(evidence.clean - 0.2)
    rests_on = all_of([helps, little]) if little else helps
    numbers = {"left": left, "clean": 100 * evidence.clean, **gains}
    return graded(helps and not little, helps, rests_on, **numbers)


@measures("Cheap protection")
def _cheap(evidence: ModelEvidence) -> Finding:
    """Compare with the users' own training: fewer than a tenth of their images, and less work than one user's."""
    suite, (row, *_) = (
        evidence.suite,
        evidence.everything.query("protection == 'rmtllmf' and per_class == 10").itertuples(),
    )
    own = recipe_for(suite.backbone)
    images = row.samples / sum(len(task.train) for task in suite.tasks.values())
    work = row.steps * evidence.realignment.batch_size / (own.steps * own.batch_size)
    cheap = images < 0.1, work < 1
    return graded(all(cheap), any(cheap), samples=int(row.samples), images=100 * images, work=work, n=len(suite.tasks))


@measures("Baseline")
def _baseline(evidence: ModelEvidence) -> Finding:
    numbers: dict[str, Any] = {"clean": 100 * evidence.clean, "model": evidence.suite.backbone.name}
    if evidence.suite.backbone.name != MODEL:
        return Finding("not testable here", numbers)
    return graded(abs(evidence.clean - published.PAPER_BASELINE) < 0.02, **numbers)


@measures("Baseline, any N")
def _slow_fall(evidence: ModelEvidence) -> Finding:
    rows = evidence.results
    clean = rows[(rows["scenario"] == "clean") & (rows["protection"] == "unprotected")]
    means = clean.groupby("n_tasks")["normalized"].mean()
    if len(means) < 2:
        raise UntestableError("no study here has several numbers of tasks without noise")
    few, most = means.index.min(), means.index.max()
    each = -means.diff().dropna() / np.diff(means.index)
    total = means[few] - means[most]
    numbers = {"few": few, "most": most, "total": 100 * total, "step": 100 * each.max()}
    numbers["why"] = f"it falls by more than {100 * SLOW:.0f} points for each task" if total > 0 else "it does not fall"
    return graded(0 < total and each.max() < SLOW, 0 < total < SLOW * (most - few), **numbers)


@measures("Unprotected, ideal")
def _unprotected_ideal(evidence: ModelEvidence) -> Finding:
    found, lost = evidence.point(**_is("ideal", "unprotected")), evidence.gain(CLEAN, _is("ideal", "unprotected"))
    loses = lost.above()
    verdict = _like_paper(found, PAPER_LINKS["ideal"].unprotected[0], loses)
    own = _own_errors(evidence, "unprotected", ["ideal"])
    return Finding(verdict, {"found": found, "clean": 100 * evidence.clean, "own": own}, loses)


@measures("Unprotected, attacked")
def _unprotected_attacked(evidence: ModelEvidence) -> Finding:
    found = {name: evidence.point(**_is(name, "unprotected")) for name in ATTACKED}
    guess, paper = evidence.guessing, PAPER_LINKS["SR"].unprotected
    like_paper = all(paper[0] <= value.mean <= paper[1] for value in found.values())
    more = any_of(value.above(guess + 0.05) for value in found.values())
    task = evidence.point(**_is("task, SR", "unprotected"))
    own = _own_errors(evidence, "unprotected", ATTACKED)
    rests_on = None if like_paper else more
    return graded(like_paper, not more, rests_on, guess=100 * guess, own=own, task=task, **found)


@measures("R-MTLLMF, ideal")
def _rmtllmf_ideal(evidence: ModelEvidence) -> Finding:
    found, lead = evidence.point(**_is("ideal")), evidence.gain(_is("ideal"), CLEAN)
    numbers = {"found": found, "clean": 100 * evidence.clean, "control": evidence.point(**CONTROL)}
    numbers |= {"lead": lead, "own": _own_errors(evidence, "rmtllmf", ["ideal"])}
    if not (told := lead.apart_from(-CLOSE)):
        return Finding("not testable here", numbers, told)
    return Finding(_like_paper(found, PAPER_LINKS["ideal"].rmtllmf, lead.above(-CLOSE)), numbers, told)


@measures("R-MTLLMF, attacked")
def _rmtllmf_attacked(evidence: ModelEvidence) -> Finding:
    found = {name: evidence.point(**_is(name)) for name in ATTACKED}
    loses = {name: evidence.gain(CLEAN, _is(name)).above() for name in found}
    verdicts = [_like_paper(value, PAPER_LINKS[name].rmtllmf, loses[name]) for name, value in found.items()]
    own = _own_errors(evidence, "rmtllmf", ATTACKED)
    return Finding(max(verdicts, key=VERDICTS.index), {**found, "own": own}, all_of(loses.values()))


@measures("SU and SR")
def _equally(evidence: ModelEvidence) -> Finding:
    """Allow a caveat where the attacks differ by little beside what either costs, as in the paper.

    What they cost is taken for known there: it is several times as large as its interval.
    """
    apart, paper = evidence.gain(_is("SU"), _is("SR")), PAPER_LINKS["SU"].rmtllmf - PAPER_LINKS["SR"].rmtllmf
    lost = {name: evidence.gain(CLEAN, _is(name)) for name in ATTACKED}
    numbers = {"apart": apart, "paper": -100 * paper, "lost": lost}
    numbers |= {"own": _own_errors(evidence, "rmtllmf", ATTACKED)}
    if same := apart.within(0.05):
        return Finding("holds", numbers, same)
    if similar := apart.within(min(each.mean for each in lost.values()) / 3):
        return Finding("holds with caveat", numbers, similar)
    neither = all_of([apart.apart_from(0.0), apart.apart_from(paper)])
    return Finding("does not hold" if neither else "not testable here", numbers, neither)


@measures("Factor")
def _factor(evidence: ModelEvidence) -> Finding:
    found = {how: [evidence.point(**_is(x, how)).mean for x in ATTACKED] for how in ("rmtllmf", "unprotected")}
    own = {how: [each.mean for each in _own_errors(evidence, how, ATTACKED).values()] for how in found}
    ratios, milder = (sorted(np.divide(each["rmtllmf"], each["unprotected"])) for each in (found, own))
    low, high = published.PAPER_GAIN
    as_much = low <= ratios[0] and ratios[1] <= high
    better = all_of(evidence.gain(_is(name), _is(name, "unprotected")).above() for name in ATTACKED)
    return graded(as_much and better, better, ratios=ratios, own=milder, specialists=1 / evidence.guessing)


@measures("Limits")
def _no_recovery(evidence: ModelEvidence) -> Finding:
    """Judge R-MTLLMF alone, of which the sentence speaks; report what the same training does without what arrived."""
    short: dict[str, Any] = {name: evidence.gain(CLEAN, _is(name)) for name in ATTACKED}
    least = min(evidence.point(**_is(name, "noise-aware")).mean for name in ATTACKED)
    sure = [each.above() for each in short.values()]
    own = {name: evidence.gain(CLEAN, _is(f"independent, {name}")) for name in ATTACKED}
    return graded(all_of(sure), any_of(sure), least=100 * least, control=evidence.point(**CONTROL), own=own, **short)


@measures("Small noise")
def _even_small(evidence: ModelEvidence) -> Finding:
    task = evidence.point(**_is("task, SR", "unprotected"))
    weight, own = (evidence.gain(CLEAN, _is(name, "unprotected")) for name in ("ideal", "independent, ideal"))
    harmful = weight.above()
    everywhere = all_of([harmful, task.below(evidence.clean - 0.05)])
    numbers: dict[str, Any] = {"weight": weight, "own": own, "task": 100 * (evidence.clean - task.mean)}
    return graded(everywhere, harmful, **numbers)


@measures("Number of tasks")
def _against_n(evidence: ModelEvidence) -> Finding:
    means = evidence.results.pivot_table("normalized", ["scenario", "protection"], "n_tasks")
    curves = [(link, how) for link in PAPER_LINKS for how in ("unprotected", "rmtllmf")]
    means = means.reindex(curves).dropna(axis=1)
    if len(means.columns) < 2:
        raise UntestableError("no study here has two numbers of tasks for all of the paper's curves")
    few, most = means.columns.min(), means.columns.max()
    change = means[most] - means[few]
    steady = change.pop(("ideal", "rmtllmf"))
    others = change.max()
    numbers = {"few": few, "most": most, "steady": 100 * steady, "others": 100 * others}
    return graded(others < 0.02 and abs(steady) < 0.05, max(others, steady) < 0.02, **numbers)


@measures("Cosines, Fig. 3")
def _cosines_protected(evidence: ModelEvidence) -> Finding:
    """Take every definition of R-MTLLMF's vectors under the noise that gives Figure 4; one under independent errors."""
    rows = evidence.cosines[evidence.cosines["scenario"] == "weight, half, ideal"]
    each = rows.groupby("definition")["cosine"].agg(["mean", "max"])
    own = abs(evidence.cosine("weight, independent, ideal", "own")).max()
    numbers = {"half": each["max"].min(), "received": each.loc["received", "mean"], "lowered": each["mean"].min()}
    numbers |= {"own": own, "sent": evidence.cosine("clean").max()}
    limit = published.PAPER_COSINES_PROTECTED
    return graded(numbers["half"] <= limit, own <= limit, **numbers)


@measures("Cosines, Fig. 4")
def _cosines_attacked(evidence: ModelEvidence) -> Finding:
    """Independent errors are what the paper's text suggests."""
    low, high = published.PAPER_COSINES_ATTACKED
    own, half = (evidence.cosine(f"weight, {how}, SR").round(2) for how in ("independent", "half"))
    inside = [low <= each.min() and each.max() <= high for each in (own, half)]
    return graded(*inside, least=half.min(), most=half.max(), own=abs(own).max())


@measures("Entanglement")
def _entanglement(evidence: ModelEvidence) -> Finding:
    """Look for large errors at small cosines, and for large cosines without errors: either is a counterexample."""
    found, half = evidence.interference, evidence.cosine("weight, half, SR").mean()
    clean, apart, common = (found[name, "unprotected"] for name in ("clean", *(f"{x}, SR" for x in APART_AND_COMMON)))
    most = abs(evidence.cosine(f"{APART_AND_COMMON[0]}, SR")).max()
    raised, sent = (evidence.cosine(name).mean() for name in (f"{APART_AND_COMMON[1]}, SR", "clean"))
    same = [value.mean for (scenario, _), value in found.items() if scenario.startswith("weight, half")]
    worse, as_good = apart.above(clean.mean + 0.1), common.below(clean.mean + 0.05)
    harmed, harmless = most < 0.1 and worse, raised > sent + 0.1 and as_good
    rests_on = worse if harmed else as_good if harmless else any_of([worse, as_good])
    numbers = {"clean": clean.mean, "apart": apart.mean, "common": common.mean, "most": most, "raised": raised}
    numbers |= {"sent": sent, "half": half, "least": min(same), "largest": max(same)}
    return graded(not harmed and not harmless, not harmed, rests_on, **numbers)


def _alone(evidence: ModelEvidence, how: str) -> Finding:
    """Judge one part without the other on the ideal link, to which the paper's figure belongs; report SR as well."""
    gains = {link: evidence.gain(_is(link), _is(link, how)) for link in ABLATED}
    level = {link: evidence.point(**_is(link)).mean for link in gains}
    numbers = {"gains": gains, "shares": {link: 100 * gain.mean / level[link] for link, gain in gains.items()}}
    found, (low, high) = gains["ideal"], published.PAPER_ABLATION_LOSS
    if less := evidence.gain(_is("ideal"), _is("ideal", how), share=low).below():
        return Finding("does not hold", numbers, less)
    worse = found.above()
    if not worse:
        return Finding("not testable here", numbers, worse)
    return Finding("holds" if low <= found.mean / level["ideal"] <= high else "holds with caveat", numbers, worse)


measures("Reloading alone")(partial(_alone, how="freeze"))
measures("Realignment alone")(partial(_alone, how="realign"))


@measures("Kept frozen")
def _kept_frozen(evidence: ModelEvidence) -> Finding:
    """Separate clean embeddings from keeping them frozen; the paper's sentence is about the second."""
    clean = [evidence.gain(_is(link, "reload-train-all"), _is(link, "realign")) for link in ABLATED]
    frozen = [evidence.gain(_is(link), _is(link, "reload-train-all")) for link in ABLATED]
    better, worse = [each.above() for each in frozen], any_of(each.below() for each in frozen)
    numbers: dict[str, Any] = {"clean": clean, "frozen": frozen}
    if any(better):
        return graded(all_of(better), any_of(better), **numbers)
    if worse:
        return Finding("does not hold", numbers, worse)
    return Finding("not testable here", numbers, any_of(each.apart_from(0.0) for each in frozen))


@measures("Samples")
def _samples(evidence: ModelEvidence) -> Finding:
    n = published.PAPER_SAMPLES
    more = evidence.gain(_is("ideal", per_class=2 * n), _is("ideal"))
    before = evidence.gain(_is("ideal"), _is("ideal", per_class=n // 2))
    little = more.mean < before.mean and more.mean < 0.05
    less = (before - more).above()
    rests_on = less if little else None
    return graded(little and less, little, rests_on, sizes=(n // 2, n, 2 * n), before=before, more=more)


@measures("Samples, both")
def _samples_alone(evidence: ModelEvidence) -> Finding:
    n = published.PAPER_SAMPLES
    both = evidence.gain(_is("ideal", per_class=2 * n), _is("ideal"))
    single = evidence.gain(_is("ideal", "realign", 2 * n), _is("ideal", "realign"))
    numbers = {"sizes": (n, 2 * n), "both": both, "single": single}
    less = single - both
    if not (told := less.apart_from(0.0)):
        return Finding("not testable here", numbers, told)
    return Finding("holds" if less.mean > 0 else "does not hold", numbers, told)


@measures("More tasks")
def _more_tasks(evidence: ModelEvidence) -> Finding:
    n = at_least_three(evidence)
    rows = evidence.evaluated(lambda_n, sizes=(2, n), limit=evidence.images, all_tasks=True)
    parts = (rows, rows[rows["member"]])
    over_all, fused = (part.groupby("n_tasks")["normalized"].mean()[[2, n]].to_numpy() for part in parts)
    both = over_all[1] > over_all[0], fused[1] > fused[0]
    return graded(all(both), any(both), n=n, over_all=100 * over_all, fused=100 * fused)


@measures("Without re-training")
def _without_training(evidence: ModelEvidence) -> Finding:
    rows = evidence.everything
    most = rows.groupby("protection")[["steps", "samples"]].max().astype(int)
    steps = most["steps"][["unprotected", "rmtllmf"]]
    return graded((steps == 0).all(), steps["unprotected"] == 0, samples=most["samples"]["rmtllmf"], **steps)


@measures("Resilient aggregation")
def _safeguards(evidence: ModelEvidence) -> Finding:
    leads: dict[str, Any] = {name: evidence.gain(_is(name), CONTROL) for name in PAPER_LINKS}
    own = {name: evidence.gain(_is(f"independent, {name}"), CONTROL) for name in PAPER_LINKS}
    sure, alone = ({name: each.above() for name, each in found.items()} for found in (leads, own))
    numbers: dict[str, Any] = {"own": own, "half": where_sure(sure), "alone": where_sure(alone)}
    return graded(all_of(sure.values()), any_of(sure.values()), **numbers, **leads)


@measures("Less interference")
def _less_interference(evidence: ModelEvidence) -> Finding:
    """Judge by the WDE against the tasks' own specialists, beside that of a model which received nothing."""
    found, control = evidence.interference, evidence.interference[NO_LINK, "control"]
    before, after = (
        {link: found[f"weight, half, {link}", how] for link in ABLATED} for how in ("unprotected", "rmtllmf")
    )
    falls = all_of((before[link] - after[link]).above() for link in ABLATED)
    less = all_of([falls, *((control - after[link]).above() for link in ABLATED)])
    clean = found["clean", "unprotected"].mean
    return graded(less, falls, before=before, after=after, clean=clean, control=control.mean)


@measures("Physical layer")
def _physical_layer(evidence: ModelEvidence) -> Finding:
    """Take what surely helps against each attack: a receiver that knows the jammer, or a code for a short payload."""
    known = {name: evidence.gain(_is(f"link, {name} known"), _is(f"link, {name} unknown")) for name in ATTACKED}
    coded = {name: _is(name, "coded-tsv-realigned") for name in ATTACKED}
    gains = {name: evidence.gain(coded[name], _is(name)) for name in ATTACKED}
    sure = [any_of([known[name].above(), gains[name].above()]) for name in ATTACKED]
    kept = {name: evidence.point(**coded[name]) for name in ATTACKED}
    return graded(all_of(sure), any_of(sure), known=known, coded=gains, kept=kept)
