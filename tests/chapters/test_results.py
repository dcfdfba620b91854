"""The book's stored results, read."""

from pathlib import Path

import pandas as pd
import pytest

from rmtllmf_lib.chapters.results import RESULTS, made, stored_results
from rmtllmf_lib.errors import InputError

TABLES = sorted(path.stem for path in RESULTS.glob("*.csv"))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_read_as_it_was_written(name: str) -> None:
    found, text = stored_results(name), pd.read_csv(RESULTS / f"{name}.csv", dtype=str, keep_default_na=False)
    assert len(found) == len(text) > 0 and [*found] == [*text]
    for column in text:
        missing = found[column].isna()
        assert (text.loc[missing, column] == "").all()  # a condition called "none" or "nan" stays what it is called
        words = found.loc[~missing, column].map(lambda value: isinstance(value, str))
        assert (found.loc[~missing, column][words] == text.loc[~missing, column][words]).all()


def test_conditions_without_a_link_say_so_in_words() -> None:
    assert "" in set(stored_results("when_the_link_helps")["correlation"])


def test_what_made_a_table() -> None:
    assert made("users_lost")["command"] == "python -m workflow.users_lost"


def test_results_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing_suites\.csv is not there: run python -m workflow\.nothing,"):
        stored_results("nothing_suites")
    with pytest.raises(InputError, match=r"users_lost\.json is not there: run python -m workflow\.users_lost,"):
        made("users_lost", tmp_path)
