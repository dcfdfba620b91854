"""What two vectors differ by, in the strongest directions of the one that both ends know: a few numbers a matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pydantic import PositiveInt
from torch import Tensor

from rmtllmf_lib.fusion.tensors import singular_triplets
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.low_rank import require_rank, weight_matrices
from rmtllmf_lib.payload.payload import Encoded, require_made_for
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.validated import validated_call, validated_init


@validated_init
@dataclass(frozen=True, eq=False)
class Cores:
    """Each weight matrix W of the transformer's blocks as the core `U' (W - W_0) V` (r, r).

    W_0 is the same matrix of a vector that both ends know, and U (m, r) and V (n, r) are its strongest singular
    directions. What is decoded, `W_0 + U core V'`, is the nearest to W of all matrices of this form. Everything else is
    decoded as it is in the known vector.

    Parameters
    ----------
    known : TaskVector
        Of the same layout and base; where it is 0, nothing is sent.
    rank : int
        r, at most the smaller side of every matrix.
    """

    known: TaskVector
    rank: PositiveInt

    __repr__ = short_repr

    @validated_call
    def numbers_layout(self, layout: Layout) -> Layout:
        """A core for each matrix, see `Payload`; `InputError` also for another layout than the known vector's."""
        layout.require_equal(self.known.layout, "the task vector")
        return Layout.from_shapes({f"{name}.core": (self.rank, self.rank) for name in require_rank(layout, self.rank)})

    @validated_call
    def side_bits(self, layout: Layout) -> int:
        """None."""
        return 0

    @validated_call
    def encode(self, tau: TaskVector) -> Encoded:
        """See `Payload`; `InputError` also for another base than the known vector's."""
        layout, change = self.numbers_layout(tau.layout), (tau - self.known).state_dict()
        values = layout.empty()
        cores = layout.views(values)
        for name, (U, V) in self.directions().items():
            cores[f"{name}.core"].copy_(U.T @ change[name].double() @ V)
        return Encoded(replace(tau, layout=layout, values=values), torch.empty(0))

    @validated_call
    def decode(self, encoded: Encoded, layout: Layout) -> TaskVector:
        """See `Payload`."""
        numbers = require_made_for(self, encoded, layout).numbers
        cores, values = numbers.state_dict(), self.known.values.clone()
        tensors = layout.views(values)
        for name, (U, V) in self.directions().items():
            tensors[name].add_(U @ cores[f"{name}.core"].double() @ V.T)
        return replace(numbers, layout=layout, values=values)

    def directions(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Left and right directions of each matrix, float64; 0 where the known one has fewer."""
        tensors = self.known.state_dict()
        triplets = {name: singular_triplets(tensors[name], self.rank) for name in weight_matrices(self.known.layout)}
        return {name: (U, V) for name, (U, _, V) in triplets.items()}
