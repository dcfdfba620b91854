"""The command `rmtllmf study`."""

from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import rmtllmf_lib.study.file as study_file
from rmtllmf_lib.command.study_command import study
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.study.file import example, load_study, save_study

app = typer.Typer(rich_markup_mode=None)
app.command()(study)


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_template_that_can_be_read(tmp_path: Path) -> None:
    assert invoke(tmp_path / "study.json", "--template") == f"{tmp_path / 'study.json'}\n"
    assert load_study(tmp_path / "study.json")[0] == example()
    (tmp_path / "own.json").write_text("by hand")
    with pytest.raises(InputError, match=r"own\.json already exists"):
        invoke(tmp_path / "own.json", "--template")
    assert (tmp_path / "own.json").read_text() == "by hand"


def test_arguments_are_handed_on_and_the_table_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("ideal", "rmtllmf", 10, 8, seed, 0.8 + seed / 100) for seed in range(3)]
    table = pd.DataFrame(rows, columns=["scenario", "protection", "per_class", "n_tasks", "seed", "normalized"])
    asked = []

    def run(file: Path, out: Path, *, workers: int, device: str) -> pd.DataFrame:
        asked.append((file, out, workers, device))
        return table

    monkeypatch.setattr(study_file, "run_study_file", run)
    file = tmp_path / "study.json"
    save_study(file, example())
    shown = invoke(file, "--workers", 2, "--device", "auto")
    invoke(file, "-o", tmp_path / "x.parquet")
    assert asked == [(file, tmp_path / "study.parquet", 2, "auto"), (file, tmp_path / "x.parquet", 1, "cpu")]
    # Student's t with two degrees of freedom: 4.303 * .01 / sqrt 3
    assert "ideal    rmtllmf         10        8  0.81       0.025      3" in shown
    assert shown.endswith(f"3 rows in {tmp_path / 'study.parquet'}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "workers is 0"),
        (["--device", "gpu"], "device is 'gpu'"),
        (["-o", "s.json"], "is the input"),
    ],
)
def test_a_study_is_refused_before_it_begins(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_study("s.json", example())
    monkeypatch.setattr(study_file, "run_study_file", lambda *_, **__: pytest.fail("began"))
    with pytest.raises(InputError, match=message):
        invoke("s.json", *words)
    monkeypatch.setenv("RMTLLMF_HOME", str(tmp_path / "s.json" / "store"))
    with pytest.raises(InputError, match="store"):
        invoke("s.json")
