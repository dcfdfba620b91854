"""What noise does to the singular directions of a matrix, one by one, and to what mergers make of it.

References
----------
.. [1] F. Benaych-Georges and R. R. Nadakuditi, "The singular values and vectors of low rank perturbations of large
   rectangular random matrices", Journal of Multivariate Analysis 111 (2012) 120-135, arXiv:1103.2221.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Real, real_array, real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.mergers import merge
from rmtllmf_lib.model.layout import group_of
from rmtllmf_lib.model.task_vector import TaskVector


def survival(strength: ArrayLike, shape: float = 1.0) -> Real:
    """How far a singular direction of a large noisy matrix still is the one that was sent.

    Of a matrix (m, n) whose entries have errors of standard deviation sigma, a direction of singular value s has the
    strength `x = s / (sigma (m n)^(1/4))`. Below 1 its vectors are lost among those of the noise. Above, the squared
    inner products of the received left and right vectors with those sent tend to [1]

        |<u, u^>|² = (x⁴ - 1) / (x² (x² + √c)),    |<v, v^>|² = (x⁴ - 1) / (x² (x² + 1/√c)),    c = m/n ≤ 1.

    Parameters
    ----------
    strength : (...) float
        x, at least 0.
    shape : float
        c, in (0, 1].

    Returns
    -------
    (...) float64
        The product of the two, in [0, 1).
    """
    x2 = real_array(strength, "strength", minimum=0) ** 2
    root = np.sqrt(real_number(shape, "shape", positive=True, maximum=1))
    over = np.maximum(x2**2 - 1, 0)
    return np.asarray(over**2 / np.maximum(x2**2 * (x2 + root) * (x2 + 1 / root), 1e-300))


def alignment(sent: Sequence[TaskVector], received: Sequence[TaskVector]) -> pd.DataFrame:
    """The received singular directions of every weight matrix beside those that were sent.

    Parameters
    ----------
    sent, received : sequences of TaskVector
        One of each per user.

    Returns
    -------
    DataFrame with one row for each user, matrix and direction: user, tensor, direction (0 is the strongest), `strength`
    as in `survival`, with the standard deviation of this matrix's own errors, `shape` (smaller over larger side), and
    `overlap`, the largest product of squared inner products with the vectors of any received direction. Positions and
    projection are left out: they are no weights of a layer.

    Raises
    ------
    InputError
        for lists of different lengths, or a vector that arrived without any error.
    """
    if len(sent) != len(received) or not sent:
        raise InputError(f"got {len(sent)} sent and {len(received)} received vectors: expected one of each per user")
    parts = []
    for user, (tau, arrived) in enumerate(zip(sent, received, strict=True)):
        tensors = arrived.state_dict()
        for name, matrix in tau.state_dict().items():
            if matrix.ndim != 2 or group_of(name) == "embeddings" or name == "visual.proj":
                continue
            error = float((tensors[name] - matrix).double().square().mean()) ** 0.5
            if not error:
                raise InputError(f"user {user} has no error in {name!r}: expected vectors that came over a noisy link")
            (U, s, Vh), (A, _, Bh) = (torch.linalg.svd(each.double(), full_matrices=False)
                                      for each in (matrix, tensors[name]))  # fmt: skip
            products = (U.T @ A).square() * (Vh @ Bh.T).square()
            rows = {
                "user": user,
                "tensor": name,
                "direction": range(len(s)),
                "strength": s / (error * matrix.numel() ** 0.25),
                "shape": min(matrix.shape) / max(matrix.shape),
                "overlap": products.amax(1),
            }
            parts.append(pd.DataFrame(rows))
    return pd.concat(parts, ignore_index=True)


def above_threshold(rows: pd.DataFrame, users: int) -> tuple[int, float]:
    """Of the directions that TSV-Merge keeps, their number for each matrix, and the share above the threshold.

    Parameters
    ----------
    rows : DataFrame
        From `alignment`; the number is that of its matrices with the fewest directions.
    users : int
    """
    each = int(rows.groupby("tensor")["direction"].max().min() + 1) // users
    return each, float((rows.loc[rows["direction"] < each, "strength"] > 1).mean())


def kept(
    sent: Sequence[TaskVector], arrivals: Mapping[float, Sequence[TaskVector]], names: Sequence[str]
) -> pd.DataFrame:
    """How much of each merger's result survives: the squared cosine between what it makes with and without errors.

    Whatever lambda is, the part 1 - kept of the power of the merged vector is error.

    Parameters
    ----------
    arrivals : dict of ratio to sequence of TaskVector
        What was received, by the power of the noise over that of the vectors.
    names : sequence of str
        Mergers that need nothing beyond the vectors.

    Returns
    -------
    DataFrame with columns ratio, merger, kept
    """
    rows = []
    for name in names:
        clean = merge(name, sent).without("embeddings").values.double()
        for ratio, received in arrivals.items():
            noisy = merge(name, received).without("embeddings").values.double()
            size = float(clean.square().sum() * noisy.square().sum())
            rows.append((ratio, name, float(clean @ noisy) ** 2 / size if size else 0.0))
    return pd.DataFrame(rows, columns=["ratio", "merger", "kept"])
