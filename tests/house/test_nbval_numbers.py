"""The comparison of notebook outputs must let through what may differ, and nothing else."""

from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output

from nbval_numbers import agree, same_record, settle
from places import HELPERS

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    ("reference", "new"),
    [
        ("mean 0.846", "mean 0.847"),
        ("mean  .846 %", "mean .850 %"),
        ("rate 4.90 nats, 12 users", "rate 4.95 nats, 12 users"),
        ("error 6e-15", "error 7e-15"),
        ("loss 1.25e-03", "loss 1.26e-03"),
        ("at \u22120.50 dB", "at \u22120.51 dB"),
        ("<td>0.912</td><td>7</td>", "<td>0.905</td><td>7</td>"),
        ("a   0.99\nb  1.000", "a 0.990\nb   1.000"),
        ("took 2.99x", "took 3.00x"),
        ("SR 7 ± 4 points", "SR 8 ± 4 points"),
        ("SR 34 ± 9, SU 0.50 ± 0.05", "SR 30 ± 8, SU 0.52 ± 0.03"),
        ("realigned 91 ± 0", "realigned 91 ± 2"),
        ("\u22125 ± 2", "-5 ± 2"),
        ("2 ± 2 with", "2 ± 3 with"),
        ("-0.00 ± 0.01", "0.00 ± 0.02"),
        ("keeps 87 % of it", "keeps 86 % of it"),
        ("at least 26 points are missing", "at least 27 points are missing"),
    ],
)
def test_lets_small_differences_through(reference: str, new: str) -> None:
    assert agree(reference, new)


@pytest.mark.parametrize(
    ("reference", "new"),
    [
        ("mean 0.846", "mean 0.823"),
        ("mean 0.846", "mean -0.846"),
        ("247 combinations", "246 combinations"),
        ("247 combinations", "247 pairs"),
        ("1 vector", "1.4 vector"),
        ("accuracy 0.9", "accuracy 0.9 0.9"),
        ("accuracy 0.900", "accuracy nan"),
        ("version 1.2.3", "version 1.2.4"),
        ("layer 0.weight", "layer 1.weight"),
        ("it was 247.", "it was 248."),
        ("error 6e-15", "error 6e-13"),
        ("✓ holds (0.50)", "✗ holds (0.50)"),
        ("SR 34 ± 6", "SR 30 ± 6"),
        ("SR 34 ± 6", "SR 28 ± 12"),
        ("2 ± 2", "0 ± 4"),
        ("91 ± 0", "94 ± 5"),
        ("SR 0.34 ± 0.06", "SR 0.34 ± 0.16"),
        ("SR 34 ± 6", "SR 34 – 6"),
        ("keeps 87 % of it", "keeps 84 % of it"),
        ("26 pointers", "27 pointers"),
        ("7 ± 4 of 8 tasks", "7 ± 4 of 9 tasks"),
    ],
)
def test_stops_changes(reference: str, new: str) -> None:
    assert not agree(reference, new)


@given(st.floats(0.1, 1e6), st.floats(-1.0, 1.0))
def test_tolerance_is_relative(value: float, shift: float) -> None:
    """Twelve printed digits leave the relative tolerance alone to decide."""
    assert agree(f"x = {value:.12e}", f"x = {value * (1 + 0.019 * shift):.12e}")
    assert not agree(f"x = {value:.12e}", f"x = {value * 1.0206:.12e}")


RECORD = {"label": "Eq. (1)", "numbers": {"share": 0.5, "lost": 3.2, "n": 64.0}, "ours": "13 ± 1 %", "gap": 2e-13}


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": {"share": 0.501, "lost": 3.25, "n": 64.0}},
        {"numbers": {"share": 0.5, "lost": 3.2 * (1 + 3e-5), "n": 64.0}},
        {"ours": "13 ± 2 %"},
        {"gap": 7e-12},
    ],
)
def test_records_of_another_processor_agree(change: dict[str, object]) -> None:
    assert same_record([RECORD], [RECORD | change])


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": {"share": 0.53, "lost": 3.2, "n": 64.0}},
        {"numbers": {"share": 0.5, "lost": -3.2, "n": 64.0}},
        {"numbers": {"share": 0.5, "lost": 3.2, "n": 65.0}},
        {"numbers": {"share": 0.5, "lost": 3.2}},
        {"numbers": {"share": 0.5, "lost": 3.2, "n": 64.0, "m": 1.0}},
        {"numbers": {"share": float("nan"), "lost": 3.2, "n": 64.0}},
        {"numbers": {"share": None, "lost": 3.2, "n": 64.0}},
        {"numbers": [0.5, 3.2, 64.0]},
        {"ours": "15 ± 1 %"},
        {"label": "Eq. (2)"},
        {"gap": 2e-8},
    ],
)
def test_records_that_differ_are_told(change: dict[str, object]) -> None:
    assert not same_record([RECORD], [RECORD | change])
    assert not same_record([RECORD], [RECORD, RECORD])


def test_a_cell_may_ask_for_another_tolerance() -> None:
    assert not agree("x = 1.000", "x = 1.040")
    assert agree("x = 1.000", "x = 1.040", rtol=0.05)
    assert agree("x = 12.0", "x = 8.0", rtol=0.5) and not agree("x = 74 ± 5", "x = 70 ± 5", rtol=0.5)


def test_settle_skips_stderr_and_the_value_after_a_semicolon() -> None:
    reference = [new_output("stream", name="stdout", text="a 0.50\n")]
    new = [
        new_output("stream", name="stderr", text="progress"),
        new_output("stream", name="stdout", text="a 0.501\n"),
        new_output("execute_result", data={"text/plain": "0.501"}),
    ]
    assert settle(reference, new, "print(a)\na;") == (reference, reference)
    kept = settle(reference, new, "print(a)\na")[1]
    assert [output["output_type"] for output in kept] == ["stream", "execute_result"]


def test_settle_changes_none_of_its_arguments() -> None:
    reference = [new_output("display_data", data={"text/plain": "0.500", "image/png": "AAAA"})]
    new = [new_output("display_data", data={"text/plain": "0.501", "image/png": "BBBB"})]
    settle(reference, new, "show()")
    assert new[0]["data"]["text/plain"] == "0.501"
    assert reference[0]["data"]["text/plain"] == "0.500"


def write_notebook(path: Path, cells: list[tuple[str, str, dict]]) -> None:
    """Write an executed notebook from (source, stored stdout, metadata)."""
    nbformat.write(
        new_notebook(
            cells=[
                new_code_cell(
                    source,
                    execution_count=number,
                    metadata=metadata,
                    outputs=[new_output("stream", name="stdout", text=stdout)],
                )
                for number, (source, stdout, metadata) in enumerate(cells, start=1)
            ]
        ),
        path,
    )


@pytest.mark.slow
def test_in_front_of_nbval(pytester: pytest.Pytester) -> None:
    """The plugin at work: near numbers pass, a far number and another word fail."""
    pytester.makeconftest('pytest_plugins = ["nbval_numbers"]')
    write_notebook(
        pytester.path / "book.ipynb",
        [
            ("print('mean', 0.846)", "mean 0.845\n", {}),
            ("import sys\nprint('loss', 0.5)\nprint('slow', file=sys.stderr)", "loss 0.5\n", {}),
            ("print('mean', 1.040)", "mean 1.000\n", {"nbval": {"rtol": 0.05}}),
            ("print('mean', 0.846)", "mean 0.800\n", {}),
            ("print('mean', 0.846)", "median 0.846\n", {}),
            ("print('time', 3)", "time 2\n", {"tags": ["nbval-ignore-output"]}),
        ],
    )
    run = pytester.runpytest_subprocess(
        "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-o", f"pythonpath={HELPERS}"
    )
    run.assert_outcomes(passed=4, failed=2)
    run.stdout.fnmatch_lines(["*Cell 3*", "*Cell 4*"])
