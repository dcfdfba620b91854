"""Payloads with a code: the plan follows the link, and what `deliver` promises is what the link delivers."""

import numpy as np
import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.payload.payload import Encoded, Full
from rmtllmf_lib.payload.signs import Signs
from rmtllmf_lib.payload.sparse import Sparse
from rmtllmf_lib.transport.coded_payload import LADDER, Quantised, deliver, full_uses, plan, plans, quantised
from rmtllmf_lib.transport.link import Link, send
from rmtllmf_lib.transport.mcs import Mcs, channel_uses, measured_thresholds, threshold
from rmtllmf_lib.transport.quantise import gaussian_quantiser
from rmtllmf_lib.wireless.channel import Uplink
from small import generator, small_backbone, small_tau

BASE = small_backbone(layers=2).weights
TAUS = {name: small_tau(BASE, seed, task=name) for seed, name in enumerate("ab")}
TINY = load_backbone("tiny").weights.layout
WORST = max(measured_thresholds().values())


@pytest.mark.slow
def test_each_side_of_the_threshold_over_a_real_link() -> None:
    """Two users who do not disturb one another: one half a dB above the threshold's SNR, one as much below it."""
    sent, mcs = Quantised(LowRank(4), 3), Mcs(4, 0.5)
    worst = threshold(mcs)
    snr = 1 / worst - 1
    uplink = Uplink(np.eye(2), power=[snr * 10**0.05, snr * 10**-0.1], noise_floor=1.0)
    link = Link(uplink, uplink.thermal_cov)
    good, bad = link.symbol_mse()
    assert good < worst < bad
    encoded = [sent.payload.encode(tau) for tau in TAUS.values()]
    arrived = send([each.numbers for each in encoded], link, mcs.scheme(3, 3.0), generator=generator())
    decoded = [
        sent.payload.decode(Encoded(numbers, each.side), BASE.layout)
        for numbers, each in zip(arrived.taus, encoded, strict=True)
    ]
    wanted = [sent.arrived(tau) for tau in TAUS.values()]
    torch.testing.assert_close(decoded[0].values, wanted[0].values, atol=1e-6, rtol=1e-4)
    assert (decoded[1] - wanted[1]).norm > 0.1 * wanted[1].norm


@pytest.mark.parametrize(("bits", "clip"), [(1, 1.6), (2, 3.0), (3, 3.0), (8, 4.0)])
def test_quantisation_is_the_links(bits: int, clip: float) -> None:
    """Sent without noise and without a code; its error is that of the quantiser of Gaussian numbers."""
    scheme = Mcs(2, 0.5).scheme(bits, clip)
    tau = TAUS["a"]
    x = tau.values / tau.rms
    direct = scheme.detect(scheme.modulate(x[:3000]), 0.0, 3000).values * tau.rms
    torch.testing.assert_close(quantised(tau, bits, clip).values[:3000], direct, atol=1e-6, rtol=1e-5)
    error = ((quantised(tau, bits, clip) - tau).norm / tau.norm) ** 2
    assert error == pytest.approx(gaussian_quantiser(2**bits, clip).distortion(), rel=0.03)
    assert not quantised(0 * tau, bits, clip).values.any()


def test_the_embedded_towers_plans() -> None:
    """Rank 8 at 3 bits fills 90 % of a full vector's uses with QPSK at rate 1/2; rank 4 at 2 bits 78 % at 1/5."""
    budget = full_uses(TINY)
    assert budget == TINY.size / 2 == 108_864
    rich, robust = LADDER
    assert rich.uses(TINY, Mcs(2, 0.5)) == 98_304 == rich.size(TINY) and rich.uses(TINY, Mcs(2, 1 / 3)) > budget
    assert robust.uses(TINY, Mcs(2, 0.2)) == 84_480 < budget
    half, fifth = threshold(Mcs(2, 0.5)), threshold(Mcs(2, 0.2))
    found = plan(half, TINY)
    assert found is not None and (found.sent, found.mcs, found.uses) == (rich, Mcs(2, 0.5), 98_304)
    found = plan(fifth, TINY)
    assert found is not None and (found.sent, found.mcs, found.uses) == (robust, Mcs(2, 0.2), 84_480)
    found = plan(half + 1e-6, TINY)
    assert found is not None and found.sent == robust and found.mcs == Mcs(2, 1 / 3)
    assert plan(fifth + 1e-6, TINY) is None and plan(2.0, TINY) is None


def test_a_better_link_takes_no_more_uses_for_the_same_payload() -> None:
    uses: dict[Quantised, list[int]] = {}
    for mse in np.linspace(0, 1, 60):
        if (found := plan(float(mse), TINY)) is not None:
            assert mse <= threshold(found.mcs) and found.uses == found.sent.uses(TINY, found.mcs) <= full_uses(TINY)
            uses.setdefault(found.sent, []).append(found.uses)
    assert list(uses) == list(LADDER)
    assert all(each == sorted(each) for each in uses.values())


def test_the_budget_decides() -> None:
    for budget in (80_000, 98_303, 98_304):
        found = plan(threshold(Mcs(2, 0.5)), TINY, budget)
        assert found is not None and found.uses <= budget and (found.sent == LADDER[0]) == (budget == 98_304)
    assert plan(0.0, TINY, 1) is None


def test_side_information_takes_uses_and_bits() -> None:
    mcs = Mcs(2, 0.5)
    signs, sparse = Quantised(Signs(), 1), Quantised(Sparse(0.05), 3)
    assert signs.size(TINY) == TINY.size + 32 * len(TINY.names)
    kept = Sparse(0.05).numbers_layout(TINY).size
    assert sparse.size(TINY) == 3 * kept + Sparse(0.05).side_bits(TINY)
    for each in (signs, sparse):
        words = each.uses(TINY, mcs) / 3072
        assert words == int(words) and 0 <= 3072 * words - each.size(TINY) < 2 * 3072


def test_users_in_outage_are_named() -> None:
    mixed = deliver(TAUS, (WORST + 1e-6, 0.1))
    assert mixed.outage == ("a",) and [*mixed.arrived] == ["b"] == [*mixed.plans]
    assert plans(TAUS, (WORST + 1e-6, 0.1)) == {"a": None, **mixed.plans}
    wanted = mixed.plans["b"].sent.arrived(TAUS["b"])
    assert mixed.arrived["b"].hash == wanted.hash
    assert deliver(TAUS, 1.0).arrived == {} and deliver(TAUS, 0.0).outage == ()
    of_array = plans(TAUS, np.array([0.1, 0.99]))  # type: ignore[arg-type]  # as `Link.symbol_mse` has them
    assert of_array == plans(TAUS, (0.1, 0.99)) and of_array["a"] is not None and of_array["b"] is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: deliver(TAUS, (0.1, 0.2, 0.3)), "mse has 3 values for 2 users"),
        (lambda: plan(-0.1, TINY), "mse is -0.1"),
        (lambda: plan(0.1, TINY, ladder=()), "the ladder is empty"),
        (lambda: plan(0.1, TINY, 0), "budget is 0"),
        (lambda: Quantised(Full(), 0), "bits is 0"),
        (lambda: Quantised("full", 2), "payload is 'full'"),  # type: ignore[arg-type]
        (lambda: Quantised(Full(), 2, 0.0), "clip is 0"),
        (lambda: threshold(Mcs(2, 0.77)), "QPSK 0.77.*QPSK 0.2"),
        (lambda: Mcs(2, 0.1), "rate is 0.1"),
        (lambda: Mcs(3, 0.5), "constellation_bits is 3"),  # type: ignore[arg-type]
        (lambda: channel_uses(Mcs(2, 0.5).scheme(2, 3.0), 0), "numbers is 0"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
