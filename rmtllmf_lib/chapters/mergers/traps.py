"""Variants of mergers that public code has in place of what their papers say, and what the difference makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rmtllmf_lib.chapters.mergers.tables import apart
from rmtllmf_lib.fusion.arithmetic import choose_lambda
from rmtllmf_lib.fusion.entries import breadcrumbs, emr, ties
from rmtllmf_lib.fusion.mergers import merger_named
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.training.evaluate import Prepared, accuracy, prepare
from rmtllmf_lib.training.suite import Suite


def ties_by_tensor(taus: Sequence[TaskVector], *, keep: float = 0.2) -> TaskVector:
    """TIES with the largest entries of every tensor, in place of those of the whole vector.

    The rule's other steps look at single entries, so each tensor can be merged as a vector that is 0 elsewhere.
    """
    layout, values = taus[0].layout, taus[0].layout.empty().zero_()
    tensors = [tau.state_dict() for tau in taus]
    for name, view in layout.views(values).items():
        stack = torch.stack([each[name] for each in tensors]).flatten(1)
        count = max(1, round(keep * stack.shape[1]))
        floors = stack.abs().topk(count, dim=1).values[:, -1:]
        large = stack * (stack.abs() >= floors)
        agreed = large * (large.sign() == large.sum(0).sign())
        view.copy_((agreed.sum(0) / (agreed != 0).sum(0).clamp_min(1)).view_as(view))
    return TaskVector(layout, values, taus[0].base_hash)


def breadcrumbs_by_row(taus: Sequence[TaskVector], *, smallest: float = 0.85, largest: float = 0.01) -> TaskVector:
    """Breadcrumbs with the shares taken of every row of the last axis, in place of every tensor."""

    def crumbs(tensor: Tensor) -> Tensor:
        rows = tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim else tensor.reshape(1, 1)
        ranks = rows.abs().argsort(1).argsort(1)
        width = rows.shape[1]
        kept = (ranks >= int(smallest * width)) & (ranks < width - int(largest * width))
        return (rows * kept).view_as(tensor)

    layout, values = taus[0].layout, taus[0].layout.empty().zero_()
    tensors = [tau.state_dict() for tau in taus]
    for name, view in layout.views(values).items():
        view.copy_(sum((crumbs(each[name]) for each in tensors), torch.zeros_like(view)))
    return TaskVector(layout, values, taus[0].base_hash)


def emr_by_tensor(taus: Sequence[TaskVector], *, task: int) -> TaskVector:
    """EMR with the rescaler as the ratio of means of the tensors' mean magnitudes, in place of the whole vector's."""
    right = emr(taus, task=task)

    def level(tau: TaskVector) -> float:
        return float(np.mean([float(view.abs().mean()) for view in tau.state_dict().values()]))

    size = level(right)
    return right * (level(taus[task]) / size if size else 1.0)


class Scoring:
    """Accuracy of a merged vector on all tasks of a suite, with the lambda that is best on validation images.

    Parameters
    ----------
    suite : Suite
    test_images, validation_images : int
        Per task.
    """

    def __init__(self, suite: Suite, test_images: int, validation_images: int = 60) -> None:
        self.suite = suite
        self.test = self._prepared("test", test_images)
        self.validation = self._prepared("validation", validation_images)

    def _prepared(self, split: str, images: int) -> dict[str, Prepared]:
        tasks = {name: self.suite.tasks[name] for name in self.suite.taus}
        return {name: prepare(self.suite.backbone, getattr(task, split), limit=images) for name, task in tasks.items()}

    def mean(self, vectors: Mapping[str, TaskVector], lam: float, images: Mapping[str, Prepared]) -> float:
        """Mean accuracy of the tasks' models, each the base with lambda times its vector."""
        base, heads = self.suite.backbone.weights, self.suite.heads
        found = [accuracy(self.suite.backbone, base + lam * tau, images[name], heads[name])
                 for name, tau in vectors.items()]  # fmt: skip
        return float(np.mean(found))

    def tuned(self, tau: TaskVector, merger: str) -> float:
        """Test accuracy of one vector for all tasks, with lambda chosen from the merger's grid."""
        vectors = dict.fromkeys(self.suite.taus, tau)
        grid = merger_named(merger).grid[::2]
        lam, _ = choose_lambda(lambda value: self.mean(vectors, value, self.validation), grid, widen=True)
        return self.mean(vectors, lam, self.test)


def traps(scoring: Scoring) -> pd.DataFrame:
    """Each trap with what it changes: in the merged vector, and in accuracy on one suite.

    Returns
    -------
    DataFrame with columns trap, entries (share of the merged vector's that differ), cosine, paper, code (mean test
    accuracies of what the paper says and of the variant)
    """
    taus = [*scoring.suite.taus.values()]
    pairs = {
        "TIES: trimmed tensor by tensor, not over the whole vector": ("ties", ties(taus), ties_by_tensor(taus)),
        "Breadcrumbs: shares of each row, not of each tensor": (
            "breadcrumbs", breadcrumbs(taus), breadcrumbs_by_row(taus)
        ),
    }  # fmt: skip
    rows = [
        (trap, *apart(right, wrong).values(), scoring.tuned(right, name), scoring.tuned(wrong, name))
        for trap, (name, right, wrong) in pairs.items()
    ]
    names = [*scoring.suite.taus]
    right, wrong = ({name: rule(taus, task=place) for place, name in enumerate(names)} for rule in (emr, emr_by_tensor))
    differ = pd.DataFrame([apart(right[name], wrong[name]) for name in names]).mean()
    scores = [scoring.mean(vectors, 1.0, scoring.test) for vectors in (right, wrong)]
    rows.append(("EMR: scaled by means of tensors' means, not of the whole vector", *differ, *scores))
    return pd.DataFrame(rows, columns=["trap", "entries", "cosine", "paper", "code"])
