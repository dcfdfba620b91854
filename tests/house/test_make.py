"""The Makefile: where results are kept, how many processes run at once, what `make check` leaves out."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from places import ROOT
from slow import SLOW


def variables(folder: Path, *words: str) -> dict[str, str]:
    """Return the variables that a target of the Makefile in `folder` would see."""
    said = subprocess.run(["make", "-pn", *words], cwd=folder, capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^(?:export )?([A-Z_]+) :?= (.*)$", said, flags=re.MULTILINE))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Makefile in a folder of its own, installed as it were, with a small library."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "Makefile", folder)
    for file in ("wireless/a.py", "chapters/one/figures.py", "command/cli.py"):
        (folder / "rmtllmf_lib" / file).parent.mkdir(parents=True)
    return folder


def test_results_are_kept_apart_for_what_can_change_them_and_nothing_else(checkout: Path) -> None:
    def store(file: str, text: str) -> str:
        (checkout / file).write_text(text)
        return variables(checkout, "clean")["STORE"]

    first = store("constraints.txt", "a==1")
    for file in ("rmtllmf_lib/wireless/a.py", "constraints.txt", "rmtllmf_lib/wireless/b.py"):
        second = store(file, "a==2")
        assert second != first, file
        first = second
    for file in ("chapters/one/figures.py", "command/cli.py", "__init__.py"):
        assert store(f"rmtllmf_lib/{file}", "label = 1") == first, file


@pytest.mark.parametrize(("cores", "jobs", "notebooks"), [(2, 2, 7), (1, 3, 7), (16, 16, 7), (16, 2, 1)])
def test_processes_never_exceed_the_cores(checkout: Path, cores: int, jobs: int, notebooks: int) -> None:
    shutil.rmtree(checkout / "notebooks", ignore_errors=True)
    (checkout / "notebooks").mkdir()
    for number in range(notebooks):
        (checkout / "notebooks" / f"{number}.ipynb").touch()
    (checkout / "show.mk").write_text("include Makefile\nbook test: ; @echo $$RMTLLMF_MAX_WORKERS\n")
    for target, at_once in (("test", jobs), ("book", min(jobs, notebooks))):
        words = ["make", "-s", "-f", "show.mk", "-o", ".venv/.installed", target, f"CORES={cores}", f"JOBS={jobs}"]
        said = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True).stdout
        workers = int(said.splitlines()[-1])
        assert workers >= 1 and (workers == 1 or workers * at_once <= cores < (workers + 1) * at_once), target


def test_as_many_at_once_as_there_are_cores(checkout: Path) -> None:
    found = variables(checkout, "clean", "CORES=5")
    assert found["JOBS"] == "$(CORES)" and found["TIMEOUT"].isdecimal()


def test_what_make_check_leaves_out_exists() -> None:
    assert [name for name in SLOW if not (ROOT / "tests" / name).exists()] == []
