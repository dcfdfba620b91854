"""Tables of the chapter on a language model: payloads that ship, drawn tasks, and what both families have."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rmtllmf_lib.chapters.language_model import tables
from rmtllmf_lib.chapters.results import stored_results
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.tasks.grammar_tasks import grammar_classes
from rmtllmf_lib.transport.coded_payload import Quantised
from rmtllmf_lib.transport.payload_file import payload_of_file, write_payload
from rmtllmf_lib.transport.scenario import inject_mse
from small import generator, small_backbone, small_tau
from texts import text_backbone

SENT = Quantised(LowRank(24), 2)


def test_payload_files_are_decoded_by_task(tmp_path: Path) -> None:
    base = small_backbone(layers=1).weights
    taus = {name: small_tau(base, seed, task=name) for seed, name in enumerate("ab")}
    for name, tau in taus.items():
        write_payload(tmp_path / f"{name}.payload", tau, Quantised(LowRank(3), 2))
    found = tables.shipped(base, tmp_path)
    assert list(found) == ["a", "b"]
    assert torch.equal(found["b"].values, Quantised(LowRank(3), 2).arrived(taus["b"]).values)
    held = tables.payload_table(found, base, tmp_path).set_index("task")
    assert held.loc["a", "bytes"] == (tmp_path / "a.payload").stat().st_size
    assert held.loc["a", "part"] == pytest.approx(held.loc["a", "bytes"] / (4 * base.layout.size))
    assert held.loc["b", "size"] == pytest.approx(found["b"].norm / base.norm)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="no payload file"):
        tables.shipped(base, tmp_path / "none")


def test_shipped_payloads_are_of_minilm_and_small() -> None:
    """A file for each task of the results: rank 24, 2 bits, of the shipped base, with nothing that names a place."""
    files = sorted(tables.PAYLOADS.glob("*.payload"))
    assert {path.stem for path in files} == {*tables.settings()["tasks"]}
    assert sum(path.stat().st_size for path in files) < 2.2e6
    assert {payload_of_file(path) for path in files} == {SENT}
    base = load_backbone("minilm").weights
    taus = tables.shipped(base)
    for name, tau in taus.items():
        assert tau.info["task"] == name and tau.info["seed"] == "0" and tau.base_hash == base.hash
        assert not tau.only("embeddings").values.any() and tau.norm > 0
        assert not [value for value in tau.info.values() if "/" in value]


def test_shares_are_of_all_parameters() -> None:
    base = text_backbone().weights
    found = tables.shares(base)
    assert found.sum() == pytest.approx(1)
    embeddings = sum(
        size for name, size in zip(base.layout.names, base.layout.sizes, strict=True) if ".embeddings." in name
    )
    assert found["embeddings"] == pytest.approx(embeddings / base.layout.size)


def test_a_sum_over_a_link_has_its_noise() -> None:
    base = small_backbone(layers=1).weights
    taus = [small_tau(base, seed) for seed in range(3)]
    found = tables.received_sum(taus, base, 0.5, "SR", generator=generator())
    error = found.values - (base.values + 0.5 * sum(tau.values for tau in taus))
    (link,) = [each for each in inject_mse("half") if each.name == "SR"]
    expected = 0.25 * link.error_cov(taus, base).sum()
    assert float(error.square().mean()) == pytest.approx(expected, rel=0.05)


def test_drawn_tasks_and_what_models_make_of_them() -> None:
    found = tables.drawn_tasks(["dates", "units"], 20, 3)
    assert [len(task.test) for task in found.values()] == [20, 20]
    backbone = text_backbone()
    other = replace(backbone.weights, values=-backbone.weights.values)
    table = tables.drawn_accuracies(backbone, found, {"one": backbone.weights, "other": other})
    assert list(table["classes"]) == [len(grammar_classes(name)) for name in ("dates", "units")]
    assert table[["one", "other"]].stack().between(0, 1).all()


def test_sentence_error_is_that_of_a_simulation() -> None:
    p, rng = np.array([0.6, 0.9, 0.8]), np.random.default_rng(0)
    drawn = rng.binomial(200, p, (20_000, 3)) / 200 / p
    found = tables.sentence_error(pd.DataFrame({"fine_tuned": p}), 200)
    assert drawn.mean(axis=1).std() == pytest.approx(found, rel=0.03)


def test_families_side_by_side() -> None:
    columns = ["per_class", "scenario", "protection", "lam_rule", "mean", "half_width"]
    images = pd.DataFrame(
        [(0, "no link", "base", "given", 0.6, 0.01), (1, "SR", "coded-tsv-realigned", "chosen", 0.9, 0.01),
         (1, "SR", "coded-tsv-realigned", "given", 0.8, 0.01), (1, "no link", "control", "given", 0.7, 0.01)],
        columns=columns,
    )  # fmt: skip
    texts = pd.DataFrame(
        [(0, "no link", "base", "given", 0.7, None), (1, "SR", "coded-tsv-realigned", "chosen", 0.95, None),
         (1, "SR", "rmtllmf", "chosen", 0.8, None)],
        columns=columns,
    )  # fmt: skip
    found = tables.beside(images, texts)
    assert found[["method", "per_class", "images", "texts"]].to_numpy().tolist() == [
        ["no link", 0, 0.6, 0.7], ["the answer, SR", 1, 0.9, 0.95]
    ]  # fmt: skip


def test_the_shipped_payloads_classify_the_public_sentences_as_stored(real_data: Path) -> None:
    """The answer without a memory of seed 0, from the files alone."""
    data = real_data.parent / "text"
    if not data.is_dir():
        pytest.skip(f"no public text tasks at {data}")
    backbone = load_backbone("minilm")
    taus = tables.shipped(backbone.weights)
    stored_rows = stored_results("language_model_suites").query("protection == 'coded-tsv' and seed == 0")
    merged = backbone.weights + float(stored_rows["lam"].iloc[0]) * tsv_merge(list(taus.values()))
    found = tables.public_accuracies(backbone, merged, data, list(taus))
    assert tables.normalised(found) == pytest.approx(stored_rows["normalized"].iloc[0], abs=3e-3)
