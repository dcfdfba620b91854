"""Every scheme: round trips, unit power, predicted distortion, soft symbols, bad input; and what only some have."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import Demapper
from torch import Tensor

from noisy_symbols import generator, mean_and_error, normal, received, squared_error
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.transport.digital import Coded, Pcm, RawFloat
from rmtllmf_lib.transport.modulation import scrambling
from rmtllmf_lib.transport.quantise import dequantise
from rmtllmf_lib.transport.scheme import Scheme
from rmtllmf_lib.transport.schemes import SCHEMES, Analog, Pam, scheme_named

SIMPLE = [
    Analog(), Analog("unbiased"), Pam(), Pam(2), Pam(16, clip=5.0), Pam(5, clip=1.0), Pcm(), Pcm(6, 4.0), Pcm(3, 2.3),
    Pcm(5, 3.0, 4), Pcm(4, 3.0, 2), Pcm(1, 1.6, 8), Pcm(10, 3.5, 10), Pcm(2, 1.0, 8),
]  # fmt: skip


def laplace(n: int) -> Tensor:
    """Heavy-tailed numbers of mean square 1."""
    signs = torch.where(torch.rand(n, generator=generator(3)) < 0.5, -1.0, 1.0)
    return signs * torch.empty(n).exponential_(generator=generator(4)) / 2**0.5


@pytest.mark.parametrize("scheme", SIMPLE, ids=str)
@pytest.mark.parametrize("mse", [0.0, 1e-3, 0.013, 0.05, 0.21, 0.7])
def test_distortion_is_the_predicted_one(scheme: Scheme, mse: float) -> None:
    wanted = scheme.distortion(mse)
    mean, error = squared_error(scheme, mse, 120_000)
    assert wanted is not None
    # a few of so many comparisons lie beyond three standard errors of errors that are far from Gaussian
    assert abs(mean - wanted) < 3.5 * error + 1e-9


@pytest.mark.parametrize("name", SCHEMES)
def test_power_is_one(name: str) -> None:
    """Of Gaussian numbers; of what else the bits hold, too, for they are scrambled."""
    n = 40_000
    mean, error = mean_and_error(SCHEMES[name].modulate(normal(n)).abs().square())
    assert abs(mean - 1) < 3 * error
    if name in ("pcm", "ldpc", "float32"):
        for x in (torch.zeros(n), laplace(n), torch.full((n,), 100.0)):
            mean, error = mean_and_error(SCHEMES[name].modulate(x).abs().square())
            assert abs(mean - 1) < 4 * error  # nine fixed sequences, each off by chance


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 100, 385])
def test_arrives_without_noise(name: str, n: int) -> None:
    scheme = SCHEMES[name]
    x = 0.7 * normal(n)
    before = x.clone()
    symbols = scheme.modulate(x)
    assert symbols.dtype == torch.complex64
    assert symbols.shape == (-(-n // scheme.reals_per_block) * scheme.symbols_per_block,)
    arrived = symbols.clone()
    found = scheme.detect(arrived, 0.0, n)
    assert found.values.shape == (n,) and found.values.dtype == torch.float32 and found.lost == 0
    tolerance = {"pam8": 0.587 / 2, "pcm": 4 / 256, "ldpc": 4 / 256, "float32": 0.0}.get(name, 1e-6)
    assert (found.values - x.clamp(-2.3, 2.3) if name == "pam8" else found.values - x).abs().max() <= tolerance + 1e-6
    torch.testing.assert_close(found.soft, symbols, atol=1e-4, rtol=0)
    if not isinstance(scheme, Analog):
        torch.testing.assert_close(found.hard, symbols, atol=1e-6, rtol=0)
    assert torch.equal(x, before) and torch.equal(arrived, symbols)


@pytest.mark.parametrize("name", SCHEMES)
def test_is_deterministic_and_each_block_stands_alone(name: str) -> None:
    scheme, mse = SCHEMES[name], 0.07
    n = scheme.reals_per_block * (2 if name == "ldpc" else 50)
    x = normal(2 * n)
    first, second = (received(scheme.modulate(part), mse, seed) for seed, part in enumerate(x.split(n)))
    alone = scheme.detect(second, mse, n)
    scheme.detect(first, mse, n)
    again = scheme.detect(second, mse, n)
    assert torch.equal(alone.values, again.values) and torch.equal(alone.soft, again.soft)
    shorter = scheme.detect(second, mse, n - 1)  # the last number was padding
    assert torch.equal(shorter.values, again.values[:-1])


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "ldpc"])
@pytest.mark.parametrize("mse", [0.013, 0.21])
def test_soft_symbols_beat_hard_ones_and_the_linear_estimate(name: str, mse: float) -> None:
    """A posterior mean has the least mean squared error; that of Gaussian symbols is the linear estimate, mu itself."""
    scheme = SCHEMES[name]
    x = normal(60_000)
    symbols = scheme.modulate(x)
    estimate = received(symbols, mse)
    found = scheme.detect(estimate, mse, len(x))
    soft, linear = ((symbols - other).abs().square() for other in (found.soft, estimate))
    if isinstance(scheme, Analog):
        assert found.soft is estimate
        return
    for worse in (linear, (symbols - found.hard).abs().square()):
        mean, error = mean_and_error(worse - soft)
        assert mean > 3 * error
    # E(s | y) leaves an error that is uncorrelated with itself
    mean, error = mean_and_error(((symbols - found.soft) * found.soft.conj()).real)
    assert abs(mean) < 3.5 * error


@pytest.mark.parametrize("name", ["pcm", "float32", "ldpc"])
def test_symbols_of_different_users_are_uncorrelated(name: str) -> None:
    """Though they send the same numbers, or numbers whose bits are much alike."""
    n = 2000
    x = 0.1 * normal(n)
    first, second = (SCHEMES[name].modulate(x, user) for user in (0, 1))
    assert (first * second.conj()).mean().abs() < 4 / len(first) ** 0.5
    estimate = received(second, 0.001)
    found = SCHEMES[name].detect(estimate, 0.001, n, user=1)
    assert (found.values - x).square().median() < 1e-3
    assert (found.hard - second).abs().max() < 1e-3 and (found.soft - second).abs().square().mean() < 1e-3
    assert (SCHEMES[name].detect(estimate, 0.001, n, user=0).values - x).abs().median() > 0.1


@pytest.mark.parametrize("mse", [0.013, 0.21])
def test_one_average_error_rate_overestimates_about_twofold(mse: float) -> None:
    """Significant bits lie on the reliable bits of the symbols: their rates must not be averaged with the others'."""
    scheme = Pcm()
    rates = scheme.bit_error_rates(mse)
    assert (np.diff(rates) > -1e-12).all()
    step = 2 * scheme.clip / 2**scheme.bits
    weights = (step * 2.0 ** np.arange(scheme.bits - 1, -1, -1)) ** 2
    by_bit, averaged = rates @ weights, rates.mean() * weights.sum()
    assert (1.7 if mse < 0.1 else 1.4) < averaged / by_bit < 2.4
    # measured: each number's wrong bits, from received words
    n = 60_000
    x = normal(n)
    values = scheme.detect(received(scheme.modulate(x), mse), mse, n).values
    sent, arrived = (((numbers + 4) / step).floor().clamp(0, 255).int() for numbers in (x, values))
    for place in range(8):
        mean, error = mean_and_error(((sent ^ arrived) >> (7 - place) & 1).double(), scheme.reals_per_block)
        assert abs(mean - rates[place]) < 3.5 * error
    mean, error = mean_and_error((values - x).square())
    assert abs(mean - averaged) > 10 * error


@pytest.mark.parametrize(("mse", "share"), [(1e-3, 1e-3), (0.005, 0.02), (0.013, 0.1)])
def test_distortion_of_pcm_nears_the_sum_over_single_bits(mse: float, share: float) -> None:
    """kappa² 4^−b/3 + Σ P_b,i 4^i Δ² and the overload, where two errors in one word are rare."""
    scheme = Pcm()
    weights = (2 * 4.0 / 256 * 2.0 ** np.arange(7, -1, -1)) ** 2
    simple = scheme.distortion(0.0) + scheme.bit_error_rates(mse) @ weights
    assert scheme.distortion(mse) == pytest.approx(simple, rel=share)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), min_size=1))
def test_float32_arrives_bit_by_bit(numbers: list[float]) -> None:
    x = torch.tensor(numbers)
    values = RawFloat().detect(RawFloat().modulate(x), 0.0, len(x)).values
    assert torch.equal(values.view(torch.int32), x.view(torch.int32))


def test_float32_breaks() -> None:
    n, mse = 60_000, 0.05
    x = normal(n)
    x[::2] = 1.0  # one wrong bit of its exponent makes this infinite, and a second one further on NaN
    estimate = received(RawFloat().modulate(x), mse)
    kept, zeroed = (RawFloat(non_finite).detect(estimate, mse, n) for non_finite in ("keep", "zero"))
    finite = kept.values.isfinite()
    assert kept.lost == zeroed.lost == int((~finite).sum()) > 100
    assert kept.values.isnan().any() and kept.values.isinf().any()
    assert torch.equal(zeroed.values[finite], kept.values[finite])
    assert (zeroed.values[~finite] == 0).all()
    assert zeroed.values.abs().max() > 1e30  # no receiver can tell these from numbers
    assert RawFloat().distortion(mse) is None


@pytest.mark.parametrize("scheme", [Coded(), Coded(bits=6, rate=0.75), Coded(constellation_bits=4, rate=0.3)], ids=str)
def test_code_corrects_everything_or_nothing(scheme: Coded) -> None:
    n = 2 * scheme.reals_per_block - 5
    x = normal(n)
    symbols = scheme.modulate(x)
    good = scheme.detect(received(symbols, 0.02), 0.02, n)
    uncoded = Pcm(scheme.bits)
    assert torch.equal(good.values, scheme.detect(symbols, 0.0, n).values)
    torch.testing.assert_close(good.values, uncoded.detect(uncoded.modulate(x), 0.0, n).values, atol=1e-6, rtol=0)
    torch.testing.assert_close(good.hard, symbols)
    assert (good.soft - symbols).abs().square().mean() < 1e-4
    bad = scheme.detect(received(symbols, 0.6), 0.6, n)
    assert float((bad.values - x).square().mean()) > 1  # worse than sending nothing
    assert (bad.hard - symbols).abs().square().mean() > 0.3
    # soft symbols own up to what they do not know
    assert (bad.soft - symbols).abs().square().mean() < (bad.hard - symbols).abs().square().mean()
    assert scheme.distortion(0.02) is None


def test_code_is_sionnas_from_end_to_end() -> None:
    """Where it fails too, which it does otherwise if the noise is believed to be another."""
    scheme, mse, user = Coded(rate=0.3, constellation_bits=2, iterations=4), 0.5, 3
    n = 6 * scheme.reals_per_block
    estimate = received(scheme.modulate(normal(n), user), mse)
    logits = Demapper("app", "qam", 2, device="cpu")(estimate / (1 - mse), torch.tensor(mse / (1 - mse)))
    logits *= 1 - 2.0 * scrambling(user, len(logits), logits.device)
    encoder = LDPC5GEncoder(3072, 10240, num_bits_per_symbol=2, device="cpu")
    bits = LDPC5GDecoder(encoder, num_iter=4, device="cpu")(logits.view(6, -1))
    words = (bits.reshape(-1, 8) @ 2.0 ** torch.arange(7, -1, -1)).int()
    found = scheme.detect(estimate, mse, n, user)
    torch.testing.assert_close(found.values, dequantise(words, 256, 4.0), atol=1e-6, rtol=0)
    assert 0.02 < float((found.values - normal(n)).square().mean())  # some words are wrong


def test_analog_symbols_have_no_hard_decisions() -> None:
    found = Analog().detect(Analog().modulate(torch.ones(4)), 0.1, 4)
    with pytest.raises(InputError, match="cancellation is 'hard' for analog symbols.*expected 'genie' or 'soft'"):
        _ = found.hard


@pytest.mark.parametrize("mse", [0.01, 0.2, 0.9, 0.999])
def test_the_mmse_estimate_is_never_worse_than_sending_nothing(mse: float) -> None:
    assert Analog().distortion(mse) == mse < 1
    assert Analog("unbiased").distortion(mse) == pytest.approx(mse / (1 - mse))
    x = laplace(60_000)  # whatever their law
    values = Analog().detect(received(Analog().modulate(x), mse), mse, len(x)).values
    mean, error = mean_and_error((values - x).square(), 2)
    assert abs(mean - mse * ((1 - mse) + mse * float(x.square().mean()))) < 3.5 * error
    cosine = torch.nn.functional.cosine_similarity(values, x, dim=0)
    assert float(cosine) == pytest.approx(math.sqrt(1 - mse), abs=5 / 60_000**0.5)


def test_schemes_by_name() -> None:
    assert scheme_named("pcm") is SCHEMES["pcm"]
    mine = Pcm(4)
    assert scheme_named(mine) is mine
    with pytest.raises(InputError, match="scheme is 'qam'"):
        scheme_named("qam")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Analog("best"), "estimate is 'best'"),
        (lambda: Pam(1), "levels is 1"),
        (lambda: Pam(8, clip=0.0), "clip is 0"),
        (lambda: Pam(8, clip=math.nan), "clip is nan"),
        (lambda: Pcm(0), "bits is 0"),
        (lambda: Pcm(17), "bits is 17"),
        (lambda: Pcm(8.0), "bits is 8.0"),  # type: ignore[arg-type]
        (lambda: Pcm(clip=-1), "clip is -1"),
        (lambda: Pcm(constellation_bits=5), "constellation_bits is 5.*2, 4"),
        (lambda: RawFloat("nan"), "non_finite is 'nan'"),
        (lambda: RawFloat(constellation_bits=True), "constellation_bits is True"),
        (lambda: Coded(rate=0.1), "rate is 0.1"),
        (lambda: Coded(rate=0.95), "rate is 0.95"),
        (lambda: Coded(iterations=0), "iterations is 0"),
    ],
)
def test_bad_schemes_are_refused(make: Callable[[], Scheme], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("name", SCHEMES)
def test_bad_blocks_are_refused(name: str) -> None:
    scheme = SCHEMES[name]
    for x, message in (
        (torch.tensor([1.0, math.nan]), "x holds NaN or infinity"),
        (torch.tensor([1.0, math.inf]), "x holds NaN or infinity"),
        (torch.ones(2, 2), r"x has shape \(2, 2\) and dtype torch.float32: expected real numbers in one dimension"),
        (torch.ones(0), r"x has shape \(0,\)"),
        (torch.ones(4, dtype=torch.int64), "dtype torch.int64"),
        (torch.ones(4, dtype=torch.complex64), "dtype torch.complex64"),
    ):
        with pytest.raises(InputError, match=message):
            scheme.modulate(x)
    symbols = scheme.modulate(torch.ones(3))
    for mse, message in (
        (1.0, r"mse is 1: expected a number in \[0, 1\)"),
        (-1e-3, r"mse is -0.001"),
        (math.nan, "mse is nan"),
        ("much", "mse is .much.: expected"),
    ):
        with pytest.raises(InputError, match=message):
            scheme.detect(symbols, mse, 3)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=message):
            scheme.distortion(mse)  # type: ignore[arg-type]
    wanted = rf"expected \({len(symbols)},\) and complex64 for 3 numbers"
    for estimate in (symbols[:-1], symbols[None], symbols.to(torch.complex128), symbols.real):
        with pytest.raises(InputError, match=wanted):
            scheme.detect(estimate, 0.1, 3)
    with pytest.raises(InputError, match="estimate holds NaN or infinity"):
        scheme.detect(torch.full_like(symbols, complex(0, math.nan)), 0.1, 3)
    with pytest.raises(InputError, match="n is 0"):
        scheme.detect(symbols, 0.1, 0)


@pytest.mark.parametrize("user", [-1, 0.5, None])
def test_users_are_counted(user: object) -> None:
    for name in ("pcm", "float32", "ldpc"):
        with pytest.raises(InputError, match="user is "):
            SCHEMES[name].modulate(torch.ones(3), user)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="user is "):
            SCHEMES[name].detect(SCHEMES[name].modulate(torch.ones(3)), 0.1, 3, user)  # type: ignore[arg-type]
