"""Mergers that scale a plain sum or mean: by tensor, by depth, or by coefficients that were learnt elsewhere.

Each raises an `InputError` for no vector, several bases or layouts, numbers that are not finite, or a setting out of
its range.

References
----------
.. [1] D.-H. Jang et al., "Model stock: All we need is just a few fine-tuned models", ECCV 2024, arXiv:2403.19522.
.. [2] K. Wang et al., "LiNeS: Post-training layer scaling prevents forgetting and enhances model merging", ICLR 2025,
   arXiv:2410.17146.
.. [3] E. Yang et al., "AdaMerging: Adaptive model merging for multi-task learning", ICLR 2024, arXiv:2310.02575.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rmtllmf_lib.arrays import real_array, real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tensors import by_entry, by_name, by_tensor, require_mergeable
from rmtllmf_lib.model.layout import Layout, block_of
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.validated import validated_call

_FIRST = (
    "visual.conv1.",
    "visual.class_embedding",
    "visual.positional_embedding",
    "visual.ln_pre.",
    "bert.embeddings.",
)


@validated_call
def model_stock(taus: Sequence[TaskVector]) -> TaskVector:
    """Model Stock [1]: the mean of each tensor times `N c / (1 + (N - 1) c)`, c the users' mean cosine there.

    A negative mean cosine counts as 0.
    """
    require_mergeable(taus)

    def rule(stack: Tensor) -> Tensor:
        n, rows = len(stack), stack.flatten(1).double()
        rows = rows / torch.where(rows.any(1, keepdim=True), rows.norm(dim=1, keepdim=True), 1)
        cosine = float((rows @ rows.T).sum() - rows.square().sum()) / (n * (n - 1)) if n > 1 else 1.0
        cosine = max(0.0, cosine)
        return stack.mean(0) * (n * cosine / (1 + (n - 1) * cosine))

    return by_tensor(taus, rule, rule)


@validated_call
def depths(layout: Layout) -> dict[str, int]:
    """Depth of every tensor: l + 1 in block l, 0 before the blocks, and one more than the last block's after them.

    Raises
    ------
    InputError
        for a tower without blocks.
    """
    found = {name: block_of(name) for name in layout.names}
    blocks = [block for block in found.values() if block is not None]
    if not blocks:
        raise InputError(f"{layout.names[0]!r} and the others are in no block: expected a vision transformer or a BERT")
    outside = {name: 0 if name.startswith(_FIRST) else max(blocks) + 2 for name in layout.names}
    return {name: outside[name] if block is None else block + 1 for name, block in found.items()}


@validated_call
def lines(taus: Sequence[TaskVector], merged: TaskVector, *, slope: float = 0.5) -> TaskVector:
    """LiNeS [2] of any merger's result: scaled by `alpha + slope l / (L - 1)` in block l of L.

    `alpha = |sum of taus|_1 / (N |merged|_1)`, which is 1/N for the sum itself. What comes before the blocks is scaled
    as the first of them, what comes after them as the last.

    Parameters
    ----------
    merged : TaskVector
        Result of any merger of these vectors.
    slope : float
        At least 0.
    """
    require_mergeable(taus)
    require_mergeable([taus[0], merged])
    rise, depth = real_number(slope, "slope", minimum=0), depths(merged.layout)
    last = max(level for name, level in depth.items() if block_of(name) is not None) - 1
    total = by_entry(taus, lambda stack: stack.sum(0)).values.abs().sum(dtype=torch.float64)
    size = float(merged.values.abs().sum(dtype=torch.float64))
    alpha = float(total) / (len(taus) * size) if size else 1.0
    scales = {name: alpha + rise * min(max(level - 1, 0), last) / max(1, last) for name, level in depth.items()}
    return by_name([merged], lambda name, stack: stack[0] * scales[name])


@validated_call
def weighted(taus: Sequence[TaskVector], *, coefficients: ArrayLike) -> TaskVector:
    """The sum with a coefficient for each user, or for each user and depth, as AdaMerging [3] learns them.

    Parameters
    ----------
    coefficients : (N,) or (N, depth) real
        See `training.merging.learn_coefficients`; a column for each of `depths`.
    """
    require_mergeable(taus)
    table = real_array(coefficients, "coefficients")
    depth = depths(taus[0].layout) if table.ndim == 2 else dict.fromkeys(taus[0].layout.names, 0)
    shape = (len(taus), 1 + max(depth.values()))[: max(1, table.ndim)]
    if table.shape != shape:
        raise InputError(f"coefficients has shape {table.shape}: expected (user,) or (user, depth), here {shape}")
    rows = torch.tensor(table.reshape(len(taus), -1), dtype=torch.float32)
    return by_name(taus, lambda name, stack: torch.tensordot(rows[:, depth[name]], stack, 1))
