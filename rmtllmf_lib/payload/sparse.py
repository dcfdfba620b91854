"""The largest entries of a task vector, with the positions they stand at."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.payload import Encoded, require_made_for
from rmtllmf_lib.validated import validated, validated_call


@validated
class Sparse:
    """The entries of largest magnitude in the whole vector; the others are decoded as 0.

    The positions are one of C(n, k) subsets, which take log2 C(n, k) bits: about n times the entropy of the share. At
    a few percent that is more than the entries themselves take at 2 or 3 bits.

    Parameters
    ----------
    share : float
        Part p of the entries that is sent, above 0 and at most 1; at least one entry is.
    """

    share: Annotated[float, Field(gt=0, le=1)]

    def _count(self, layout: Layout) -> int:
        return math.ceil(self.share * layout.size)

    @validated_call
    def numbers_layout(self, layout: Layout) -> Layout:
        """See `Payload`."""
        return Layout(("visual.largest",), ((self._count(layout),),))

    @validated_call
    def side_bits(self, layout: Layout) -> int:
        """ceil(log2 C(n, k)), what numbering the subsets takes."""
        n, k = layout.size, self._count(layout)
        nats = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        return math.ceil(round(nats / math.log(2), 6))

    @validated_call
    def encode(self, tau: TaskVector) -> Encoded:
        """See `Payload`; `side` holds the positions (k,) int64, in rising order."""
        layout = self.numbers_layout(tau.layout)
        positions = tau.values.abs().topk(layout.size, sorted=False).indices.sort().values
        return Encoded(replace(tau, layout=layout, values=tau.values[positions]), positions)

    @validated_call
    def decode(self, encoded: Encoded, layout: Layout) -> TaskVector:
        """See `Payload`."""
        numbers, positions = require_made_for(self, encoded, layout).numbers, encoded.side
        inside = positions.dtype == torch.int64 and positions.shape == numbers.values.shape
        if not inside or int(positions.min()) < 0 or int(positions.max()) >= layout.size:
            raise InputError(
                f"side has shape {tuple(positions.shape)} and dtype {positions.dtype}: expected the positions of "
                f"{len(numbers.values)} numbers among {layout.size}, of the vector's own layout"
            )
        return replace(
            numbers, layout=layout, values=torch.zeros(layout.size).index_copy_(0, positions, numbers.values)
        )
