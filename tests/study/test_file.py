"""Study files: written, read and run; errors name their places."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rmtllmf_lib.study.file as module
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.storage.store import Store
from rmtllmf_lib.study.file import SuiteSpec, example, load_study, run_study_file, save_study, summary
from rmtllmf_lib.study.study import Study, run_study
from rmtllmf_lib.training.finetune import Recipe, recipe_for
from rmtllmf_lib.training.suite import Suite
from rmtllmf_lib.transport.scenario import Scenario
from studies import STUDY, make_suite, require_same

FULL = Study(
    (Scenario("one", 0.5), Scenario("two", (0.1, 0.2), "snr", "common")), ("rmtllmf", "base"), 7, (1, 5), (2, 3), 4,
    None, {2: 0.5, 3: 0.25}, Recipe(5, 6, 1e-3, 0.1, 2, 1.0, (0.8, 0.99), ("mlp",)), {"rmtllmf": 1e-4}, (1e-3, 1e-4),
    50, "bfloat16", {"rmtllmf": (0.1, 0.5)}, 3,
)  # fmt: skip
MINIMAL = {"study": {"scenarios": [{"name": "ideal", "mse": 0.013}], "protections": ["rmtllmf"]}}


@pytest.mark.parametrize("study", [FULL, STUDY, example()])
def test_what_is_written_is_read(tmp_path: Path, study: Study) -> None:
    suite = SuiteSpec("base", tasks=("x", "y"), source="folder", root="images", head="prototype", seed=3)
    save_study(tmp_path / "sub" / "study.json", study, suite)
    assert load_study(tmp_path / "sub" / "study.json") == (study, suite)
    save_study(tmp_path / "study.json", study)
    assert load_study(tmp_path / "study.json") == (study, SuiteSpec())


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps(MINIMAL))
    study, suite = load_study(tmp_path / "study.json")
    assert study == Study((Scenario("ideal", 0.013),), ("rmtllmf",)) and suite == SuiteSpec()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "the file: Invalid JSON"),
        ("", "the file: Invalid JSON"),
        (b"\xff\xfe", "the file: Invalid JSON"),
        ("[]", "the file is []: "),
        ({}, "study: "),
        ({"study": {"protections": ["base"]}}, "study.scenarios: "),
        ({**MINIMAL, "sweet": {}}, "sweet: "),
        ({"study": {**MINIMAL["study"], "sedes": 3}}, "study.sedes is 3: "),
        ({"study": {**MINIMAL["study"], "seeds": "3"}}, "study.seeds is '3': "),
        ({"study": {**MINIMAL["study"], "seeds": 0}}, "study.seeds is 0: "),
        ({"study": {**MINIMAL["study"], "per_class": [5, 5]}}, "per_class are [5, 5]: "),
        ({"study": {**MINIMAL["study"], "realignment": {"steps": 3}}}, "study.realignment.lr: "),
        ({"study": {**MINIMAL["study"], "lam": {"two": 0.5}}}, "study.lam.two"),
        ({"study": {**MINIMAL["study"], "scenarios": [{"name": "a", "mse": -1}]}}, "study.scenarios.0.mse"),
    ],
)
def test_invalid_study_files(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "study.json"
    data = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content))
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(InputError) as error:
        load_study(file)
    assert message in str(error.value) and str(file) in str(error.value)


def test_paths_of_a_study_file_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = {"backbone": "~/base", "weights_file": "~/w.safetensors", "root": "~/photos", "vectors": "~/tau"}
    (tmp_path / "study.json").write_text(json.dumps({**MINIMAL, "suite": paths}))
    _, suite = load_study("~/study.json")
    assert {name: getattr(suite, name) for name in paths} == {
        name: path.replace("~", str(tmp_path)) for name, path in paths.items()
    }
    assert SuiteSpec().root is None and SuiteSpec().backbone == "tiny"
    save_study("~/sub/study.json", *load_study("~/study.json"))
    assert load_study(tmp_path / "sub" / "study.json")[1] == suite


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("device", "gpu")])
def test_what_can_be_refused_is_refused_before_data_are_loaded(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "study.json").write_text(json.dumps({**MINIMAL, "suite": {"root": "none", "source": "folder"}}))
    with pytest.raises(InputError, match=f"{name} is {value!r}"):
        run_study_file(tmp_path / "study.json", **{name: value})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_study(tmp_path / "none.json")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Load the small suite instead of any other."""
    suite = make_suite()
    monkeypatch.setattr(module, "load_backbone", lambda *_, **__: suite.backbone)
    monkeypatch.setattr(module, "load_suite", lambda *_, device, **__: replace(suite, device=device))
    return suite


def test_a_file_is_run(tmp_path: Path, small: Suite) -> None:
    study = replace(STUDY, seeds=2, per_class=(1,), sizes=(3,), protections=("unprotected", "rmtllmf", "base"))
    save_study(tmp_path / "study.json", study)
    table = run_study_file(tmp_path / "study.json", tmp_path / "out.parquet", store=Store(tmp_path / "store"))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), table)
    assert json.loads((tmp_path / "out.provenance.json").read_text())["study"]["seeds"] == 2
    require_same(run_study(study, small, store=Store(tmp_path / "other")), table)
    rows = summary(table).set_index(["scenario", "protection"])
    noisy = table[(table["scenario"] == "noisy") & (table["protection"] == "rmtllmf")]
    assert rows.loc[("noisy", "rmtllmf"), "mean"] == pytest.approx(noisy["normalized"].mean(), abs=5e-4)
    assert set(rows["seeds"]) == {2} and len(rows) == 5


def test_a_file_may_ask_for_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each suite has the next seed, and the repetition of the same number."""
    suite, asked = make_suite(), []

    def load(*_: Any, seed: int, **__: Any) -> Suite:
        asked.append(seed)
        return suite

    monkeypatch.setattr(module, "load_backbone", lambda *_, **__: suite.backbone)
    monkeypatch.setattr(module, "load_suite", load)
    study = replace(STUDY, seeds=1, per_class=(1,), sizes=(3,), protections=("unprotected", "control"))
    content = {"suite": {"seed": 5}, "study": json.loads(json.dumps(asdict(study))), "suites": 2}
    (tmp_path / "study.json").write_text(json.dumps(content))
    table = run_study_file(tmp_path / "study.json", tmp_path / "out.parquet", store=Store(tmp_path / "store"))
    assert asked == [5, 6] and table["seed"].unique().tolist() == [0, 1]
    require_same(table, run_study(replace(study, seeds=2), suite, store=Store(tmp_path / "other"))
                 .sort_values("seed", kind="stable", ignore_index=True))  # fmt: skip
    assert json.loads((tmp_path / "out.provenance.json").read_text())["suites"] == 2
    (tmp_path / "study.json").write_text(json.dumps({**content, "suites": 0}))
    with pytest.raises(InputError, match="suites is 0"):
        load_study(tmp_path / "study.json")


def test_the_spec_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "load_backbone", lambda name, weights_file: asked.append((name, weights_file)))
    monkeypatch.setattr(module, "load_suite", lambda *given, **named: asked.append((given, named)))
    spec = SuiteSpec("folder", "file", ("x",), "folder", "images", "prototype", "tau", 5, "bfloat16", "hard")
    spec.load(device="cuda")
    options = {"source": "folder", "root": "images", "head": "prototype", "vectors": "tau", "seed": 5, "device": "cuda"}
    options |= {"autocast": "bfloat16", "difficulty": "hard", "store": None, "recipe": None}
    assert asked == [("folder", "file"), ((None, ("x",)), options)]


def test_the_steps_of_fine_tuning_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "load_suite", lambda *given, recipe, **named: asked.append(recipe))
    SuiteSpec(tasks=("signs",), steps=400).load()
    assert asked == [recipe_for(load_backbone("tiny"), steps=400)]
    for steps in (0, 2.5):
        with pytest.raises(InputError, match=f"steps is {steps}"):
            SuiteSpec(steps=steps)  # type: ignore[arg-type]


def test_another_seed_of_real_images_trains_new_vectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(module, "with_vectors", lambda *given, **named: asked.append((given, named)))
    suite, store = make_suite(), Store(tmp_path)
    SuiteSpec(tasks=("x",), source="folder", root="images", autocast="bfloat16").again(suite, 3, store=store)
    assert asked == [((suite, None, 3), {"autocast": "bfloat16", "store": store})]
    with pytest.raises(InputError, match="seed is 3 but images are drawn anew"):
        SuiteSpec(tasks=("folder:x=images", "signs")).again(suite, 3)
    with pytest.raises(InputError, match="vectors are those in tau"):
        SuiteSpec(tasks=("x",), source="folder", root="images", vectors="tau").again(suite, 3)
