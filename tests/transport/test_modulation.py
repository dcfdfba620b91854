"""Gray labels as the standard has them; decisions, posteriors, code and error rates against Sionna's own."""

import runpy
import sys

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sionna.phy.fec.ldpc import LDPC5GDecoder
from sionna.phy.mapping import Demapper, LLRs2SymbolLogits, SymbolDemapper, SymbolLogits2Moments

from noisy_symbols import generator, mean_and_error, normal
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.transport import modulation
from rmtllmf_lib.transport.modulation import (
    alphabet,
    bits_of,
    decode,
    demapper,
    expected_symbols,
    ldpc,
    mapper,
    nearest,
    posterior_mean,
    scrambling,
    symbols_of,
    transition,
)
from rmtllmf_lib.transport.schemes import SCHEMES

CPU = torch.device("cpu")
WIDTHS = (2, 4, 6, 8, 10)


def random_bits(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2, (n,), generator=generator(seed)).to(torch.uint8)


def disturbed(symbols: torch.Tensor, variance: float) -> torch.Tensor:
    return symbols + variance**0.5 * torch.randn(len(symbols), generator=generator(1), dtype=torch.complex64)


def test_64_qam_is_that_of_the_standard() -> None:
    """TS 38.211, 5.1.5, word for word."""
    bits = (np.arange(64)[:, None] >> np.arange(5, -1, -1)) & 1
    a, b, c, d, e, f = (1 - 2 * bits).T
    wanted = (a * (4 - c * (2 - e)) + 1j * b * (4 - d * (2 - f))) / np.sqrt(42)
    found = mapper(6, CPU)(torch.from_numpy(bits).flatten()).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("width", WIDTHS)
def test_labels_are_gray_and_power_is_one(width: int) -> None:
    symbols = alphabet(width)
    assert (np.diff(symbols.levels) > 0).all()
    assert 2 * np.mean(symbols.levels**2) == pytest.approx(1, abs=1e-12)
    assert (symbols.labels[1:] != symbols.labels[:-1]).sum(1).tolist() == [1] * (len(symbols.levels) - 1)
    bits = random_bits(width * 2000)
    sent = mapper(width, CPU)(bits)
    index = nearest(torch.view_as_real(sent), symbols.levels)
    assert torch.equal(bits_of(index, symbols), bits)
    torch.testing.assert_close(symbols_of(index, symbols.levels), sent, atol=1e-6, rtol=0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("variance", [0.01, 0.3, 2.0])
def test_decisions_are_those_of_the_max_log_demapper(width: int, variance: float) -> None:
    received = disturbed(mapper(width, CPU)(random_bits(width * 1500)), variance)
    index = nearest(torch.view_as_real(received), alphabet(width).levels)
    wanted = Demapper("maxlog", "qam", width, hard_out=True, device="cpu")(received, torch.tensor(variance))
    assert torch.equal(bits_of(index, alphabet(width)).float(), wanted)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("variance", [1e-6, 0.05, 1.0])
def test_posterior_means_are_sionnas(width: int, variance: float) -> None:
    received = disturbed(mapper(width, CPU)(random_bits(width * 1000)), variance)
    found = torch.view_as_complex(posterior_mean(torch.view_as_real(received), alphabet(width).levels, variance / 2))
    logits = SymbolDemapper("qam", width, device="cpu")(received, torch.tensor(variance))
    wanted, _ = SymbolLogits2Moments("qam", width, device="cpu")(logits)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_posterior_mean_weighs_levels_by_their_probability() -> None:
    levels, probability, variance = np.array([-1.0, 0.0, 2.0]), np.array([0.2, 0.5, 0.3]), 0.4
    y = normal(50)
    weights = probability * np.exp(-((y.numpy()[:, None] - levels) ** 2) / (2 * variance))
    wanted = torch.from_numpy(weights @ levels / weights.sum(1)).float()
    torch.testing.assert_close(posterior_mean(y, levels, variance, probability), wanted, atol=1e-5, rtol=1e-5)
    sure = posterior_mean(y, levels, variance, np.array([0.0, 1.0, 0.0]))
    assert torch.equal(sure, torch.zeros(50))


@pytest.mark.parametrize("width", WIDTHS)
def test_expected_symbols_are_sionnas(width: int) -> None:
    logits = 3 * normal(width * 500)
    wanted, _ = SymbolLogits2Moments("qam", width, device="cpu")(
        LLRs2SymbolLogits(width, device="cpu")(logits.view(-1, width))
    )
    torch.testing.assert_close(expected_symbols(logits, width), wanted, atol=1e-5, rtol=0)
    certain = random_bits(width * 500)
    torch.testing.assert_close(
        expected_symbols(200.0 * certain - 100, width), mapper(width, CPU)(certain), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("deviation", [0.05, 0.2, 0.6])
def test_error_rates_of_64_qam(deviation: float) -> None:
    """Bit by bit against the tails of a Gaussian, counted by hand on the amplitudes 1, 3, 5, 7."""
    unit = 1 / np.sqrt(42)

    def q(multiple: int) -> float:
        return float(norm.sf(multiple * unit / deviation))

    sign = sum(q(i) for i in (1, 3, 5, 7)) / 4
    # |level| above 4: bounds at ±4
    middle = sum(q(4 - i) + q(4 + i) for i in (1, 3)) + sum(q(i - 4) - q(i + 4) for i in (5, 7))
    # 2 < |level| < 6
    inner = sum(q(2 - i) - q(6 - i) + q(2 + i) - q(6 + i) for i in (3, 5))
    outer = sum(q(s * 2 - i) - q(s * 6 - i) if s > 0 else q(2 + i) - q(6 + i) for i in (1, 7) for s in (1, -1))
    rates = [sign, middle / 4, (2 - inner + outer) / 4]
    np.testing.assert_allclose(np.diagonal(alphabet(6).flips(deviation**2)), rates, rtol=1e-9)


@pytest.mark.parametrize("width", [2, 6, 8])
def test_flips_as_measured(width: int) -> None:
    variance = 0.2
    bits = random_bits(width * 25_000)
    hard = Demapper("maxlog", "qam", width, hard_out=True, device="cpu")
    wrong = hard(disturbed(mapper(width, CPU)(bits), variance), torch.tensor(variance)) != bits
    wrong = wrong.view(-1, width // 2, 2).transpose(1, 2).reshape(-1, width // 2).double()
    wanted = alphabet(width).flips(variance / 2)
    for a in range(width // 2):
        for b in range(width // 2):
            mean, error = mean_and_error(wrong[:, a] * wrong[:, b])
            assert abs(mean - wanted[a, b]) < 3.5 * error


def test_transitions() -> None:
    levels = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(transition(levels, 0.3).sum(1), 1, atol=1e-12)
    np.testing.assert_array_equal(transition(levels, 0.0), np.eye(5))
    assert transition(levels, 1e-3)[0, 1] == pytest.approx(norm.sf(0.25 / 1e-3**0.5), rel=1e-9)


@pytest.mark.parametrize("variance", [0.05, 0.0825, 0.3])
def test_decoding_stops_early_with_the_same_words(variance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modulation, "DECODED_AT_ONCE", 8)
    code = ldpc(1024, 2052, 6, CPU)
    words = random_bits(12 * 1024).view(12, 1024).float()
    received = disturbed(mapper(6, CPU)(code.encoder(words).flatten()), variance)
    logits = Demapper("app", "qam", 6, device="cpu")(received, torch.tensor(variance)).view(12, 2052)
    looks = []
    counted = code._replace(to_words=lambda *args, **options: looks.append(1) or code.to_words(*args, **options))
    bits, improved = decode(counted, logits, 10)
    whole = LDPC5GDecoder(code.encoder, num_iter=10, device="cpu")(logits)
    found = (code.encoder(bits) == (improved > 0)).all(1)
    assert found.any() == (variance < 0.3)
    assert torch.equal(bits[found], whole[found])
    # what was not found went through all ten iterations
    assert torch.equal(bits[~found], whole[~found])
    if variance == 0.05:
        assert len(looks) < 6  # two batches with three checks each
        assert torch.equal(bits, words)


def test_scrambling_differs_between_users_and_not_between_calls() -> None:
    first, second = scrambling(0, 60_001, CPU), scrambling(1, 60_001, CPU)
    assert first.shape == (60_001,) and first.dtype == torch.uint8 and set(first.tolist()) == {0, 1}
    for bits in (first, second, first ^ second):
        assert abs(float(bits.double().mean()) - 0.5) < 3 * 0.5 / 60_001**0.5
    scrambling.cache_clear()
    assert torch.equal(first, scrambling(0, 60_001, CPU))


def test_without_sionna(monkeypatch: pytest.MonkeyPatch) -> None:
    """Amplitudes need none of it; bits say what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "sionna"]:
        monkeypatch.setitem(sys.modules, name, None)
    runpy.run_path(modulation.__file__)  # imports nothing of it at the top
    for kept in (alphabet, mapper, demapper, ldpc):
        kept.cache_clear()
    for name, scheme in SCHEMES.items():
        if name in ("analog-mmse", "analog-unbiased", "pam8"):
            scheme.detect(scheme.modulate(torch.ones(8)), 0.1, 8)
        else:
            with pytest.raises(InputError, match=r"Sionna.*rmtllmf\[link\]"):
                scheme.modulate(torch.ones(8))
