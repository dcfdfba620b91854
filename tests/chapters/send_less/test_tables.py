"""Tables of the chapter on sending less: sampled rates against formulas, payloads over a link, and stored results."""

import numpy as np
import pandas as pd
import pytest
import torch

from rmtllmf_lib.chapters.send_less import tables
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.published import PAPER_LINKS
from rmtllmf_lib.study.units import Bench
from rmtllmf_lib.transport.coded_payload import Quantised, full_uses
from rmtllmf_lib.transport.link import Link
from rmtllmf_lib.wireless.channel import draw_uplinks
from rmtllmf_lib.wireless.information import capacity_bits, ideal_distortion, repeated_mse
from studies import make_suite

DRAWS = 40_000


@pytest.mark.parametrize("mse", [link.mse for link in PAPER_LINKS.values()])
def test_what_is_sampled_has_the_law_of_the_formulas(mse: float) -> None:
    rng = np.random.default_rng(1)
    for uses in (1, 3):
        off = 6 / np.sqrt(DRAWS)
        assert tables.with_feedback(mse, uses, DRAWS, rng=rng) == pytest.approx(ideal_distortion(mse, uses), rel=off)
        assert tables.averaged(mse, uses, DRAWS, rng=rng) == pytest.approx(repeated_mse(mse, uses), rel=off)
    # the information density has a variance of at most two nats squared
    off = 6 * np.sqrt(2 / DRAWS) / np.log(2)
    assert tables.sampled_bits(mse, DRAWS, rng=rng) == pytest.approx(float(capacity_bits(mse)), abs=off)


def test_rates_have_every_link_and_number_of_uses() -> None:
    found = tables.rates([1, 2], 1000, rng=np.random.default_rng(0))
    assert list(zip(found["link"], found["uses"], strict=True)) == [(n, k) for n in PAPER_LINKS for k in (1, 2)]
    assert np.allclose(found["coded"], found["mse"] ** found["uses"])
    with pytest.raises(InputError, match="mse"):
        tables.with_feedback(1.5, 2, 10, rng=np.random.default_rng(0))


def test_thresholds_are_those_of_the_library_in_order() -> None:
    found = tables.threshold_table()
    assert found["mse"].is_monotonic_increasing and (found["bits_per_use"] < found["capacity"]).all()
    assert np.allclose(10 ** (found["snr_db"] / 10), 1 / found["mse"] - 1)
    points = tables.word_error_points()
    below = points.merge(found[["mcs", "mse"]], on="mcs", suffixes=("", "_limit"))
    assert not below[below["mse"] <= below["mse_limit"]]["errors"].any()
    assert set(points["mcs"]) == set(found["mcs"])


def test_payloads_cross_a_link_exactly_or_a_user_is_in_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = make_suite()
    drop = draw_uplinks(1, np.random.default_rng(3), num_users=3)[0]
    links = {"ideal": Link(drop, drop.thermal_cov, cancellation="hard")}
    table, arrived = tables.sent_coded(suite.taus, links, generator=torch.Generator().manual_seed(0))
    row = table.iloc[0]
    assert row["wrong"] == 0 and row["uses"] <= full_uses(suite.backbone.weights.layout)
    assert row["mean"] <= row["worst"] == links["ideal"].symbol_mse().max()
    sent = tables.plan(row["worst"], suite.backbone.weights.layout)
    assert sent is not None
    for name, tau in suite.taus.items():
        expected = Quantised(sent.sent.payload, sent.sent.bits).arrived(tau)
        torch.testing.assert_close(arrived["ideal"][name].values, expected.values, rtol=1e-4, atol=1e-7)
    # the same with noise that the receiver is not told of: numbers go wrong, and are counted
    deaf = {"SR": Link(drop, 1e6 * drop.thermal_cov, drop.thermal_cov, cancellation="hard")}
    with pytest.raises(InputError, match="'SR' has an MSE of"):
        tables.sent_coded(suite.taus, deaf, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(tables, "plan", lambda *_: sent)
    table, _ = tables.sent_coded(suite.taus, deaf, generator=torch.Generator().manual_seed(0))
    assert table["wrong"].iloc[0] > 0.1 * row["payload"]


def test_links_are_attacked_behind_the_receivers_back() -> None:
    drop = draw_uplinks(2, np.random.default_rng(3), num_users=3)[0]
    links = tables.attacked_links(drop, 9.0)
    assert list(links) == list(PAPER_LINKS)
    means = [link.symbol_mse().mean() for link in links.values()]
    assert means[0] < min(means[1:])
    for link in links.values():
        assert np.allclose(link.effective_design_cov, drop.thermal_cov)


def test_power_limited_bits_are_those_of_shannon() -> None:
    suite = make_suite()
    taus, base = list(suite.taus.values()), suite.backbone.weights
    found = tables.power_limited_bits(taus, base)
    for bits, link in zip(found, PAPER_LINKS.values(), strict=True):
        snr = [tau.values.square().mean() / (link.mse * base.values.square().mean()) for tau in taus]
        assert bits == pytest.approx(full_uses(base.layout) * np.log2(1 + np.array(snr)).mean(), rel=1e-4)


def test_uses_of_the_ladder_stay_below_a_vector() -> None:
    tau = next(iter(make_suite().taus.values()))
    found = tables.uses_of_ladder(tau)
    assert found["worst"].is_monotonic_increasing and (found["share"] <= 1).all()


def test_normalised_accuracy_of_one_vector_is_that_of_its_own_model() -> None:
    suite = make_suite()
    name = next(iter(suite.taus))
    alone = type(suite)(suite.backbone, {name: suite.tasks[name]}, suite.heads, {name: suite.taus[name]})
    assert tables.normalised_accuracy(Bench(alone), {name: suite.taus[name]}, 1.0, 20) == pytest.approx(1.0, abs=0.11)


def test_decomposition_takes_each_step_from_its_table() -> None:
    common = {"lost": 0, "reloaded": False, "repeats": 1, "tasks": "all"}
    rows = [
        ("full", None, "weight", "half", "arithmetic", 1), ("full", None, "weight", "independent", "arithmetic", 9),
        ("full", None, "", "", "arithmetic", 2), ("full", 3, "", "", "arithmetic", 9),
        ("full", None, "task", "half", "arithmetic", 3), ("full", None, "task", "half", "tsv", 4),
        ("rank 8", 3, "", "", "tsv", 5), ("rank 8", 2, "", "", "tsv", 9),
    ]  # fmt: skip
    columns = ["payload", "bits", "scale", "correlation", "merger", "normalized"]
    payloads = pd.DataFrame(rows, columns=columns).assign(**common, seed=0)
    answers = pd.DataFrame(
        [("calibrated", 8, k, "coded-tsv-realigned", rule, 0, value)
         for k, rule, value in ((1, "chosen", 6), (10, "chosen", 7), (1, "given", 9))],
        columns=["difficulty", "n_tasks", "per_class", "protection", "lam_rule", "seed", "normalized"],
    )  # fmt: skip
    found = tables.decomposition(payloads, answers, [1, 10])
    assert found["normalized"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert found["step"].is_unique
