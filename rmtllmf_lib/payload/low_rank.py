"""The strongest singular components of each weight matrix, as two balanced factors."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import PositiveInt

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tensors import singular_triplets
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.payload import Encoded, require_made_for
from rmtllmf_lib.validated import validated, validated_call

_GROUPS = ("attention", "mlp")
_LEFT, _RIGHT = ".left", ".right"


@validated
class LowRank:
    """Each weight matrix of the transformer's blocks as `U sqrt(S)` (m, r) and `sqrt(S) V'` (r, n), `tau ~ U S V'`.

    No matrix of rank r is nearer (Eckart-Young). The two factors have equal norms, so that one quantiser suits both.
    Everything else is not sent, and is decoded as 0: norms, biases, embeddings and the projection.

    Parameters
    ----------
    rank : int
        r, at most the smaller side of every matrix.
    """

    rank: PositiveInt

    @validated_call
    def numbers_layout(self, layout: Layout) -> Layout:
        """Two factors per matrix, see `Payload`; InputError for a layout without matrices, or with smaller ones."""
        shapes: dict[str, tuple[int, ...]] = {}
        for name, (rows, columns) in require_rank(layout, self.rank).items():
            shapes |= {name + _LEFT: (rows, self.rank), name + _RIGHT: (self.rank, columns)}
        return Layout.from_shapes(shapes)

    @validated_call
    def side_bits(self, layout: Layout) -> int:
        """None."""
        return 0

    @validated_call
    def encode(self, tau: TaskVector) -> Encoded:
        """See `Payload`."""
        layout = self.numbers_layout(tau.layout)
        values = layout.empty()
        factors, tensors = layout.views(values), tau.state_dict()
        for name in weight_matrices(tau.layout):
            U, s, V = singular_triplets(tensors[name], self.rank)
            factors[name + _LEFT].copy_(U * s.sqrt())
            factors[name + _RIGHT].copy_((V * s.sqrt()).T)
        return Encoded(replace(tau, layout=layout, values=values), torch.empty(0))

    @validated_call
    def decode(self, encoded: Encoded, layout: Layout) -> TaskVector:
        """See `Payload`."""
        numbers = require_made_for(self, encoded, layout).numbers
        factors, values = numbers.state_dict(), torch.zeros(layout.size)
        tensors = layout.views(values)
        for name in weight_matrices(layout):
            torch.matmul(factors[name + _LEFT], factors[name + _RIGHT], out=tensors[name])
        return replace(numbers, layout=layout, values=values)


@validated_call
def weight_matrices(layout: Layout) -> dict[str, tuple[int, int]]:
    """Names and shapes of the weight matrices of the transformer's blocks; an `InputError` where there are none."""
    parts = zip(layout.names, layout.shapes, layout.groups, strict=True)
    found = {name: (shape[0], shape[1]) for name, shape, group in parts if len(shape) == 2 and group in _GROUPS}
    if not found:
        raise InputError(
            f"the layout has no matrix among its {len(layout.names)} tensors, of attention or MLP: "
            "expected a transformer's blocks; send the full vector instead"
        )
    return found


@validated_call
def require_rank(layout: Layout, rank: PositiveInt) -> dict[str, tuple[int, int]]:
    """`weight_matrices`, if none has a side shorter than the rank; an `InputError` that names one otherwise."""
    found = weight_matrices(layout)
    for name, shape in found.items():
        if rank > min(shape):
            raise InputError(
                f"rank is {rank}, and {name!r} is a matrix of {shape[0]} by {shape[1]}: expected at most {min(shape)}"
            )
    return found
