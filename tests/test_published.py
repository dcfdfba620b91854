"""The published numbers, recomputed from the published tables where these are available."""

import os
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from places import ROOT
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.published import COSINES_VIT_B16, PAPER_BASELINE, PAPER_GAIN, PAPER_LINKS, normalized_accuracy_vit_b16

# method: start of the files' names, and how the individual models were fine-tuned
METHODS = {
    "task arithmetic": ("fft_task_addition", "standard"),
    "average": ("fft_average", "standard"),
    "TIES": ("fft_ties_merging", "standard"),
    "L-LoRA": ("l_lora_task_addition", "l_lora"),
}


@pytest.fixture(scope="module")
def tables() -> Path:
    folder = Path(os.environ.get("RMTLLMF_PETA", ROOT.parent / "shared" / "data" / "peta"))
    if not (folder / "single_task.csv").is_file():
        pytest.skip(f"no published tables at {folder}: set RMTLLMF_PETA to results/ViT-B-16 of tanganke/peta")
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_means_over_all_combinations(tables: Path, method: str) -> None:
    """One lambda for each N, the best for the mean, among those that were tried on every combination."""
    stem, mode = METHODS[method]
    single = pd.read_csv(tables / "single_task.csv").query("finetune_mode == @mode and step > 0")
    own = single.set_index("task")["accuracy"]
    means = []
    for n in range(2, 8):
        rows = pd.read_csv(tables / f"{stem}_num-tasks={n}.csv")
        members = rows[[f"dataset:{k}" for k in range(n)]].to_numpy()
        rows["normalized"] = [
            np.mean([row[m] / own[m] for m in each]) for (_, row), each in zip(rows.iterrows(), members, strict=True)
        ]
        rows["combination"] = ["+".join(sorted(each)) for each in members]
        grid = [name for name in ("scaling_factor", "k") if name in rows]
        rows[grid] = rows[grid].round(6)  # .3 is also written .30000000000000004
        groups = rows.groupby(grid or (lambda _: 0)).agg(mean=("normalized", "mean"), count=("combination", "nunique"))
        means.append(groups.loc[groups["count"] == comb(7, n), "mean"].max())
    published = normalized_accuracy_vit_b16(method)
    assert published["n_tasks"].tolist() == list(range(2, 8))
    np.testing.assert_allclose(published["normalized"], means, atol=5.1e-4)


def test_cosines(tables: Path) -> None:
    pairs = pd.read_csv(tables / "cs_fft.csv")
    others = pairs.loc[pairs["task:0"] != pairs["task:1"], "cosine_similarity"]
    assert (others.min(), others.mean(), others.max()) == pytest.approx(COSINES_VIT_B16, abs=5.1e-4)


def test_tables_are_tidy() -> None:
    for method in METHODS:
        table = normalized_accuracy_vit_b16(method)
        assert list(table.columns) == ["n_tasks", "normalized", "method"] and set(table["method"]) == {method}
        assert table["normalized"].is_monotonic_decreasing and table["normalized"].between(0.5, 1).all()
    assert normalized_accuracy_vit_b16().equals(normalized_accuracy_vit_b16("task arithmetic"))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(InputError, match="method is 'magic'.*'task arithmetic'"):
        normalized_accuracy_vit_b16("magic")


def test_the_papers_numbers_agree_with_each_other() -> None:
    """What Section IV says in words of the numbers that it gives."""
    attacked = [link for name, link in PAPER_LINKS.items() if name != "ideal"]
    for link in attacked:
        factors = [link.rmtllmf / value for value in link.unprotected]
        assert PAPER_GAIN[0] - 0.5 < min(factors) and max(factors) < PAPER_GAIN[1] + 0.5
    links = list(PAPER_LINKS.values())
    assert [link.snr_db for link in links] == sorted((link.snr_db for link in links), reverse=True)
    assert [link.mse for link in links] == sorted(link.mse for link in links)
    assert all(max(link.unprotected) < link.rmtllmf < PAPER_BASELINE for link in links)
