"""The list of mergers: properties that all of them share, what they need, and mergers of one's own."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergers import LAYOUT, given_for, vector, vectors
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.mergers import CALIBRATIONS, MERGERS, NEEDS, merge, merger_named, merger_table
from rmtllmf_lib.model.task_vector import TaskVector
from vectors import unhurried

NAMES = [*MERGERS, "arithmetic+svc", "tsv+svc", "ties+lines", "dare+svc"]
RANDOM = {name for name in NAMES if "dare" in name}


@pytest.mark.parametrize("name", NAMES)
def test_every_merger_keeps_base_and_layout_and_leaves_its_input_alone(name: str) -> None:
    for count in (1, 2, 5):
        taus = vectors(count)
        before = [tau.values.clone() for tau in taus]
        merged = merge(name, taus, **given_for(taus))
        assert merged.base_hash == taus[0].base_hash and merged.layout == LAYOUT
        assert all(torch.equal(tau.values, old) for tau, old in zip(taus, before, strict=True))
        again = merge(name, taus, **given_for(taus))
        assert torch.equal(again.values, merged.values)


@pytest.mark.parametrize("name", sorted(set(NAMES) - RANDOM))
def test_the_order_of_the_users_does_not_matter(name: str) -> None:
    taus = vectors(5)
    order = [3, 0, 4, 2, 1]
    turned = merge(name, [taus[k] for k in order], **given_for(taus, order))
    torch.testing.assert_close(turned.values, merge(name, taus, **given_for(taus)).values, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"pcb"}))
@unhurried
@given(st.sampled_from([-2.0, -0.5, 0.25, 3.0]), st.integers(0, 9))
def test_larger_vectors_give_a_larger_result(name: str, scale: float, seed: int) -> None:
    taus = vectors(3, seed)
    larger = merge(name, [scale * tau for tau in taus], **given_for(taus)).values
    torch.testing.assert_close(larger, scale * merge(name, taus, **given_for(taus)).values, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_zeros_give_zeros_and_one_among_others_no_trouble(name: str) -> None:
    zero = vector(torch.zeros(LAYOUT.size))
    assert not merge(name, [zero] * 3, **given_for([zero] * 3)).values.any()
    taus = [*vectors(2), zero]
    assert merge(name, taus, **given_for(taus)).values.isfinite().all()


MEANS = [
    "average", "magmax", "dare-ties", "emr", "model-stock", "fisher", "regmean", "wudi",
    "median", "trimmed-mean", "geometric-median", "multi-krum", "centred-clipping",
]  # fmt: skip


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("count", [1, 4])
def test_equal_vectors_are_merged_to_one_of_them(name: str, count: int) -> None:
    (tau,) = vectors(1)
    options = {"drop": 0.0} if name == "dare-ties" else {}
    merged = merge(name, [tau] * count, **given_for([tau] * count), **options)
    torch.testing.assert_close(merged.values, tau.values, atol=2e-5, rtol=1e-4)


# --- names and needs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if merger_named(name).needs])
def test_what_is_needed_and_missing_is_named(name: str) -> None:
    (need,) = merger_named(name).needs
    with pytest.raises(InputError, match=f"needs {need}, .*expected {NEEDS[need][:12]}"):
        merge(name, vectors(2))


@pytest.mark.parametrize(
    ("name", "close"),
    [("tvs", "'tsv'"), ("TIES", "known are"), ("isoc", "'iso-c'"), ("", "known are"), ("tsv+", "'tsv'")],
)
def test_unknown_names_get_close_ones(name: str, close: str) -> None:
    with pytest.raises(InputError, match=f"merger is '.*{close}"):
        merger_named(name)


def test_settings_reach_the_merger_and_others_are_refused() -> None:
    taus = vectors(3)
    assert not torch.equal(merge("ties", taus, keep=0.5).values, merge("ties", taus).values)
    with pytest.raises(InputError, match="'ties' has no setting 'kept': expected some of keep"):
        merge("ties", taus, kept=0.5)
    with pytest.raises(InputError, match="'ties.svc' takes no settings, got keep"):
        merge("ties+svc", taus, keep=0.5)
    with pytest.raises(InputError, match="got no task vector"):
        merge("tsv", [])
    with pytest.raises(InputError, match="task vector 1 belongs to another base"):
        merge("tsv", [taus[0], TaskVector(LAYOUT, taus[1].values, "0" * 64)])


def test_lambdas_and_grids() -> None:
    for name in NAMES:
        merger = merger_named(name)
        lam = merger.suggested_lambda(8)
        assert merger.grid[0] == 0 and min(merger.grid[1:]) < lam < max(merger.grid), name
    assert merger_named("arithmetic").suggested_lambda(8) == pytest.approx(0.2895, abs=1e-4)
    assert merger_named("arithmetic+svc").suggested_lambda(8) == 1


def test_table_lists_everything() -> None:
    table = merger_table().set_index("merger")
    assert list(table.index) == [*MERGERS, *(f"…+{name}" for name in CALIBRATIONS)]
    assert table.loc["regmean", "needs"] == "grams" and table.loc["arithmetic", "lambda"] == "lambda_N"


# --- mergers of one's own --------------------------------------------------------------------------------------------


OWN = """
def half(taus, *, factor=0.5):
    return sum(taus) * factor

def noisy(taus, *, generator):
    return taus[int(len(taus) * float(generator.initial_seed() % 2) / 2)]

def wrong(taus):
    return taus[0].values

other = 3
"""


def test_a_function_in_a_file_or_module_is_a_merger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_to_merge.py").write_text(OWN)
    taus, file = vectors(2), tmp_path / "mine_to_merge.py"
    wanted = ((taus[0] + taus[1]) * 0.5).values
    assert torch.equal(merge(f"{file}:half", taus).values, wanted)
    assert torch.equal(merge(f"{file}:half", taus, factor=0.25).values, wanted / 2)
    assert torch.equal(merge(f"{file}:half", taus, **given_for(taus)).values, wanted)
    monkeypatch.syspath_prepend(tmp_path)
    assert torch.equal(merge("mine_to_merge:half", taus).values, wanted)
    assert merger_named(f"{file}:noisy").needs == ("generator",)
    with pytest.raises(InputError, match="needs generator"):
        merge(f"{file}:noisy", taus)


def test_a_file_is_executed_once_until_it_changes(tmp_path: Path) -> None:
    file, log = tmp_path / "mine.py", tmp_path / "log"
    text = f"with open({str(log)!r}, 'a') as log:\n    log.write('x')\n{OWN}"
    file.write_text(text)
    taus = vectors(2)
    for _ in range(2):
        assert torch.equal(merge(f"{file}:half", taus).values, ((taus[0] + taus[1]) * 0.5).values)
    assert merger_named(f"{file}:noisy").needs == ("generator",) and log.read_text() == "x"
    file.write_text(text.replace("factor=0.5", "factor=0.3"))  # as long as before, and in the same second
    assert torch.equal(merge(f"{file}:half", taus).values, ((taus[0] + taus[1]) * 0.3).values)
    assert log.read_text() == "xx"


ENDLESS = """
def endless(taus):
    merged = taus[0] * 1.0
    merged.values[0] = float("inf")
    return merged
"""


@pytest.mark.parametrize("name", [*NAMES, "own"])
def test_vectors_and_results_that_are_not_finite_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"{OWN}{ENDLESS}")
    taus = vectors(3)
    options = given_for(taus)
    taus[1].values[5] = torch.nan
    with pytest.raises(InputError, match="task vector 1: "):
        merge(f"{tmp_path}/mine.py:half" if name == "own" else name, taus, **options)
    if name == "own":
        with pytest.raises(InputError, match="the result of merger '.*:endless': "):
            merge(f"{tmp_path}/mine.py:endless", vectors(3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}/mine.py:missing", "has no function 'missing': expected one of .*'half'"),
        ("{}/mine.py:other", "has no function 'other'"),
        ("{}/none.py:half", "is no file"),
        ("{}/mine.py:wrong", "returned a Tensor: expected a TaskVector"),
        ("no_such_module:half", "'no_such_module' cannot be imported"),
        (":half", "cannot be imported"),
    ],
)
def test_functions_that_are_no_mergers(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    with pytest.raises(InputError, match=message):
        merge(name.format(tmp_path), vectors(2))
