"""A check passes, prints and is quiet, or it stops everything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rmtllmf_lib.chapters.checks import check, check_that, covariance_bound, share_bound, standard_errors
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.channel import complex_normal
from rmtllmf_lib.wireless.simulate import covariance_root, sample_cov

numbers = st.floats(-1e6, 1e6)


def test_what_holds_is_printed_with_its_tolerance(capsys: pytest.CaptureFixture[str]) -> None:
    check("two and two", 4.0, 4.0)
    check("a row", [1.0, 2.0], [1.05, 1.95], rtol=0.1)
    check("nearly nothing", [1e-9, 0.0], 0.0, atol=1e-8)
    check_that("more is more", np.bool_(True), "2 > 1")
    check_that("plainly", True)
    assert capsys.readouterr().out.splitlines() == [
        "✓ two and two (to 1e-06 relative)",
        "✓ a row (to 0.1 relative)",
        "✓ nearly nothing (to 1e-06 relative and 1e-08 absolute)",
        "✓ more is more: 2 > 1",
        "✓ plainly",
    ]


def test_what_does_not_hold_stops(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match=r"^✗ a row: 2.5, expected 2 \(rtol 0.1\)$"):
        check("a row", [1.05, 2.5, 3.2], [1.0, 2.0, 3.0], rtol=0.1)  # the worst of them is named
    with pytest.raises(AssertionError, match="^✗ less is more: 1 < 2$"):
        check_that("less is more", np.bool_(False), "1 < 2")
    with pytest.raises(AssertionError, match="^✗ plainly$"):
        check_that("plainly", False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("expected", [0.0, np.inf, np.nan])
def test_only_numbers_are_compared(value: float, expected: float) -> None:
    """Infinity is not equal to itself here: a claim about it is a claim about nothing."""
    for pair in ((value, expected), (expected, value), ([1.0, value], [1.0, expected])):
        with pytest.raises(AssertionError, match="✗ claim"):
            check("claim", *pair, rtol=10.0)


def test_imaginary_parts_count(capsys: pytest.CaptureFixture[str]) -> None:
    check("claim", [1 + 5j, 2], np.array([1 + 5j, 2.0]))
    check("claim", 2.0, 2 + 0j)
    assert capsys.readouterr().out.count("✓") == 2
    for found, wanted in ((np.array([1 + 5j]), 1.0), (1.0, 1 + 5j), (torch.tensor([1 + 5j]), [1 - 5j])):
        with pytest.raises(AssertionError, match=r"✗ claim: 1.*, expected 1.*j|✗ claim: 1.*j, expected 1"):
            check("claim", found, wanted)


def test_nothing_proves_nothing() -> None:
    with pytest.raises(AssertionError, match="no number to compare"):
        check("claim", [], 1.0)


@settings(deadline=None)
@given(numbers, numbers, st.floats(0, 0.5), st.floats(0, 10))
def test_the_bound_is_the_documented_one(value: float, expected: float, rtol: float, atol: float) -> None:
    gap, allowed = abs(value - expected), atol + rtol * abs(expected)
    if gap > allowed:
        with pytest.raises(AssertionError, match="✗ claim"):
            check("claim", value, expected, rtol=rtol, atol=atol)
    else:
        check("claim", value, expected, rtol=rtol, atol=atol)


def test_shapes_are_broadcast() -> None:
    check("all of them", np.full((3, 4), 2.0), 2)
    check("by column", [[1.0, 2.0], [1.0, 2.0]], [1.0, 2.0])
    with pytest.raises(ValueError, match="broadcast"):
        check("claim", [1.0, 2.0], [1.0, 2.0, 3.0])


def test_a_claim_that_fails_without_strictness_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    check_that("water flows uphill", False, "0 of 3 rivers", strict=False)
    assert capsys.readouterr().out == "✗ water flows uphill: 0 of 3 rivers\n"
    check_that("water flows downhill", True, strict=False)
    assert capsys.readouterr().out == "✓ water flows downhill\n"


def test_a_number_that_is_off_is_printed_without_strictness(capsys: pytest.CaptureFixture[str]) -> None:
    check("one is two", 1.0, 2.0, strict=False)
    assert capsys.readouterr().out == "✗ one is two: 1, expected 2 (rtol 1e-06)\n"


@pytest.mark.parametrize("tolerance", [np.nan, np.inf, -1.0, None, "1e-3", True])
@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_a_tolerance_is_finite(name: str, tolerance: object) -> None:
    """With NaN, 1 = 2 would pass."""
    with pytest.raises(InputError, match=f"{name} is"):
        check("one is two", 1.0, 2.0, **{name: tolerance})  # type: ignore[arg-type]


# --- bounds of random numbers: no alarm in many draws of what is true, and one for what is not


@pytest.mark.parametrize(("p", "n"), [(0.5, 1), (0.095, 10), (0.3, 100), (0.01, 5000), (0.5, 10_000)])
def test_the_bound_of_a_share(p: float, n: int) -> None:
    """By the exact law: the probability of a false alarm, below 1e-5."""
    far = np.abs(np.arange(n + 1) / n - p) > share_bound(p, n)
    assert stats.binom.pmf(np.arange(n + 1)[far], n, p).sum() < 1e-5
    assert n < 100 or share_bound(p, n) < 8 * np.sqrt(p * (1 - p) / n) + 5 / n


def test_the_bound_of_the_largest_of_several_deviations() -> None:
    for comparisons in (1, 32, 1000):
        assert 1e-7 < 2 * comparisons * stats.norm.sf(standard_errors(comparisons)) < 1e-5
    assert standard_errors() == pytest.approx(4.89, abs=0.01)


@pytest.mark.parametrize("spectrum", [[1.0], [1, 1, 1, 1], [100, 1, 1, 1], [1, 0.5, 0.2, 0.1]])
@pytest.mark.parametrize("n", [30, 1000])
def test_the_bound_of_a_sample_covariance(spectrum: list[float], n: int) -> None:
    """A single strong user made one seed in eleven fail: a chi-square of one degree of freedom has long tails."""
    K, rng = np.diag(spectrum).astype(complex), np.random.default_rng(0)
    draws = covariance_root(K) @ complex_normal((1000, len(K), n), rng)
    off = np.linalg.norm(sample_cov(draws) - K, axis=(-2, -1))
    bound = covariance_bound(K, n)
    assert off.max() < bound
    assert bound < 13 * off.mean()  # it bites
    if n == 1000:
        assert np.linalg.norm(sample_cov(1.2 * draws[0]) - K) > bound
