"""A check passes, prints and is quiet, or it stops everything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmtllmf_lib.chapters.checks import check, check_that

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
