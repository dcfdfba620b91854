"""The first page, its figure and the file of all verdicts are those of the committed records."""

import csv
import json
from pathlib import Path

import pytest

from places import ROOT
from rmtllmf_lib.chapters.verdicts.registry import CLAIMS
from tools import front_page, paper_map

PAGES = front_page.pages(ROOT)


@pytest.mark.parametrize("path", [*PAGES], ids=lambda path: path.name)
def test_is_in_step_with_the_records(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run: python tools/front_page.py"


def test_the_file_has_every_verdict_once() -> None:
    with (ROOT / "book" / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [claim.label for claim in CLAIMS]
    assert all(isinstance(json.loads(row["numbers"]), dict) for row in rows)


def test_every_claim_has_a_rule_that_exists() -> None:
    assert set(paper_map.rules()) == {claim.label for claim in CLAIMS}
    for name in paper_map.rules().values():
        assert paper_map.find_function(name).path.parent.name == "verdicts"


def test_a_dozen_claims_open_the_last_chapter() -> None:
    groups = [claim.group for claim in CLAIMS if claim.group]
    assert len(groups) == 12 and 1 < len(set(groups)) < 7
