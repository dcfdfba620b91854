"""Tables of the chapter on interference."""

import pandas as pd
from numpy.testing import assert_allclose

from rmtllmf_lib.chapters.interference.tables import matrix


def test_matrix_is_the_mean_over_seeds() -> None:
    rows = [("a", "b", 0.2), ("a", "c", 0.4), ("b", "c", 0.1), ("a", "b", 0.4), ("a", "c", 0.4), ("b", "c", 0.3)]
    table = pd.DataFrame(rows, columns=["first", "second", "cosine"])
    assert_allclose(matrix(table, ["a", "b", "c"]), [[1, 0.3, 0.4], [0.3, 1, 0.2], [0.4, 0.2, 1]])
