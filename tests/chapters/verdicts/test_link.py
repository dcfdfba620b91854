"""Claims about the link: every rule gives each of its verdicts, for another link or for other numbers."""

import re
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rmtllmf_lib.chapters.verdicts.link as module
from rmtllmf_lib.chapters.verdicts.claims import assess
from rmtllmf_lib.chapters.verdicts.evidence import LinkEvidence
from rmtllmf_lib.chapters.verdicts.registry import CLAIMS
from rmtllmf_lib.chapters.worst_case_noise import paper_link
from rmtllmf_lib.chapters.worst_case_noise.paper_link import OVER_ALL_ELSE, Setting
from rmtllmf_lib.wireless.adversary import attack
from rmtllmf_lib.wireless.channel import Uplink, draw_uplinks, with_floor
from rmtllmf_lib.wireless.receiver import sic_mse, sum_rate
from rmtllmf_lib.wireless.simulate import draw_symbols

BY_LABEL = {claim.label: claim for claim in CLAIMS}


@cache
def link(num_users: int = 8, num_rx_antennas: int = 16, noise_db: float = 0.0) -> Uplink:
    drops = draw_uplinks(30, np.random.default_rng(3), num_users=num_users, num_rx_antennas=num_rx_antennas)
    return with_floor(drops, noise_db)


def judged(label: str, drops: Uplink | None = None, jnr_db: float = 9.0, **seen: Any) -> str:
    """Return the verdict on one claim, whose sentence has all its numbers and, if it does not hold, a reason."""
    evidence = LinkEvidence(link() if drops is None else drops, jnr_db, sent=seen.pop("sent", {}))
    vars(evidence).update(seen)  # what is cached is not computed
    row = assess([BY_LABEL[label]], evidence).iloc[0]
    assert row["verdict"] == "holds" or row["verdict"] in BY_LABEL[label].why
    assert row["ours"] and not re.search(r"(?<![\d.])-0(\.0+)?(?![\d.])|\de[-+]\d", row["ours"])
    return str(row["verdict"])


@pytest.mark.parametrize(
    ("label", "verdict"),
    [
        ("Eq. (2)", "holds"), ("Eq. (3)", "holds with caveat"), ("Eq. (4)", "does not hold"),
        ("Eq. (5)", "holds with caveat"), ("Order", "holds with caveat"), ("Linear SIC", "does not hold"),
        ("(P1)", "holds"), ("Eq. (13)", "holds"), ("Eq. (14)", "does not hold"), ("(P2)", "does not hold"),
        ("(P2), full power", "does not hold"), ("Eq. (15)", "does not hold"), ("Knowledge", "holds with caveat"),
    ],
)  # fmt: skip
def test_verdicts_on_the_link(label: str, verdict: str) -> None:
    assert judged(label) == verdict


@pytest.mark.parametrize("label", ["Eq. (4)", "Eq. (5)", "Order", "Linear SIC", "(P2)", "(P2), full power", "Eq. (15)"])
def test_with_a_single_user_all_of_them_hold(label: str) -> None:
    assert judged(label, link(num_users=1)) == "holds"


@pytest.mark.parametrize(
    ("label", "setting", "jnr_db", "verdict"),
    [
        ("Eq. (3)", {"noise_db": 30.0}, 9.0, "holds"),  # noise that 64-QAM is fine enough for
        ("Order", {"num_rx_antennas": 4}, 9.0, "does not hold"),  # the strong cannot be suppressed
        ("Linear SIC", {"noise_db": -10.0}, 9.0, "holds with caveat"),  # decisions are right
        ("(P2)", {}, -30.0, "holds"),
        ("(P2)", {}, -20.0, "holds with caveat"),
        ("(P2), full power", {}, -5.0, "holds with caveat"),
        ("Eq. (15)", {}, -5.0, "holds with caveat"),
        ("Knowledge", {}, -5.0, "holds"),  # little of the space is worth jamming
        ("Knowledge", {}, 30.0, "does not hold"),
    ],
)
def test_another_link_has_another_verdict(label: str, setting: Any, jnr_db: float, verdict: str) -> None:
    assert judged(label, link(**setting), jnr_db) == verdict


def test_the_published_noise_is_right_where_every_power_is_one() -> None:
    drops = link()
    unit = Uplink(drops.H, np.ones_like(drops.power), drops.noise_floor / drops.power.max())
    assert judged("Eq. (14)", unit) == "holds"


@pytest.mark.parametrize(
    ("label", "name", "instead"),
    [
        ("Eq. (2)", "draw_symbols", lambda shape, rng: 2 * draw_symbols(shape, rng)),
        ("Eq. (3)", "_as_measured", lambda evidence: False),
        ("Eq. (5)", "_as_measured", lambda evidence: False),
        ("(P1)", "attack", lambda drops, power, kind: attack(drops, power, "white")),
        ("Eq. (13)", "sum_rate", module.sum_rate_published),
    ],
)
def test_what_theory_says_is_measured(monkeypatch: pytest.MonkeyPatch, label: str, name: str, instead: Any) -> None:
    monkeypatch.setattr(module, name, instead)
    assert judged(label) == "does not hold"


@pytest.mark.parametrize(
    ("label", "name", "instead", "words"),
    [
        ("(P1)", "attack", lambda drops, power, kind: attack(drops, power, "white"), r"the best gained \d+\.\d %"),
        ("Eq. (13)", "sum_rate", lambda *given: 1.1 * sum_rate(*given), r"by 10\.00 %"),
    ],
)
def test_the_sentence_says_how_far_off(
    monkeypatch: pytest.MonkeyPatch, label: str, name: str, instead: Any, words: str
) -> None:
    before = assess([BY_LABEL[label]], LinkEvidence(link()))["ours"].item()
    monkeypatch.setattr(module, name, instead)
    after = assess([BY_LABEL[label]], LinkEvidence(link()))["ours"].item()
    assert re.search(words, after) and not re.search(words, before)


# --- the numbers of Section IV ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def snrs() -> pd.DataFrame:
    settings = [Setting(), Setting(1.0, order="strongest-first", knowledge="unaware"), Setting(3.6)]
    return paper_link.search_snrs(settings, 60, seed=0)


@pytest.mark.parametrize("label", ["Ideal link", "Attacked SNRs", "Mean MSEs"])
def test_readings_that_fit_some_of_the_numbers(snrs: pd.DataFrame, label: str) -> None:
    assert judged(label, snrs=snrs) == "holds with caveat"


def test_readings_that_fit_nothing(snrs: pd.DataFrame) -> None:
    off = snrs.assign(snr_off=3.0, fall_off=3.0, off=3.0)
    assert judged("Ideal link", snrs=off) == judged("Attacked SNRs", snrs=off) == "does not hold"
    far = snrs.assign(distance=0.3)
    assert judged("Attacked SNRs", snrs=far) == judged("Mean MSEs", snrs=far) == "does not hold"


@pytest.mark.parametrize(("distance", "words"), [(0.1, "with all three MSEs"), (0.3, "without all three MSEs")])
def test_whether_a_reading_has_the_mses_is_said(snrs: pd.DataFrame, distance: float, words: str) -> None:
    evidence = LinkEvidence(link())
    vars(evidence).update(snrs=snrs.assign(fall_off=3.0, distance=distance))
    row = assess([BY_LABEL["Attacked SNRs"]], evidence).iloc[0]
    assert row["numbers"]["has_mses"] == words and f"dB {words}" in row["ours"]
    assert row["verdict"] == "does not hold" and "no reading with these MSEs falls" in row["ours"]


def test_usual_readings_that_fit_everything(snrs: pd.DataFrame) -> None:
    fit = snrs.assign(snr_off=0.1, fall_off=0.1, off=0.1, distance=0.01)
    for label in ("Ideal link", "Attacked SNRs", "Mean MSEs"):
        assert judged(label, snrs=fit) == "holds"
    assert judged("Ideal link", snrs=fit[fit["reading"] == OVER_ALL_ELSE]) == "holds with caveat"


# --- task vectors that were sent --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ({"analog, genie": (1.0, 0.0), "PCM": (20.0, 27.0)}, "holds with caveat"),
        ({"analog, genie": (1.0, 0.0), "analog": (1.3, 0.0)}, "holds with caveat"),
        ({"analog, genie": (1.0, 0.0), "analog": (1.05, 0.1)}, "holds"),
        ({"analog, genie": (1.0, 5.0), "analog": (1.3, 0.0)}, "does not hold"),
        ({"LDPC": (2e-5, 5.0), "PCM": (840.0, 0.0)}, "does not hold"),
    ],
)
def test_errors_as_the_paper_models_them(errors: dict[str, tuple[float, float]], verdict: str) -> None:
    mse = sic_mse(link()[0], link()[0].thermal_cov)
    sent = {
        way: SimpleNamespace(table=pd.DataFrame({"variance": ratio * mse, "excess_kurtosis": kurtosis}))
        for way, (ratio, kurtosis) in errors.items()
    }
    assert judged("Noise on task vectors", sent=sent) == verdict
