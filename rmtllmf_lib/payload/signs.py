"""The signs of a task vector and one scale for each tensor: one bit a number."""

from __future__ import annotations

from dataclasses import replace

import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.payload import Encoded, require_made_for
from rmtllmf_lib.validated import validated, validated_call


@validated
class Signs:
    """Every number as +-s, with s the mean magnitude in its tensor: the nearest such vector.

    One bit a number suffices, whatever the quantiser's range: only the signs of what arrives count.
    """

    @validated_call
    def numbers_layout(self, layout: Layout) -> Layout:
        """See `Payload`."""
        return layout

    @validated_call
    def side_bits(self, layout: Layout) -> int:
        """A float32 for each tensor."""
        return 32 * len(layout.names)

    @validated_call
    def encode(self, tau: TaskVector) -> Encoded:
        """See `Payload`; numbers are +-1, and `side` holds the scales (tensor,) float32."""
        scales = torch.stack([tensor.abs().mean() for tensor in tau.state_dict().values()])
        return Encoded(replace(tau, values=_signs(tau.values)), scales)

    @validated_call
    def decode(self, encoded: Encoded, layout: Layout) -> TaskVector:
        """See `Payload`."""
        numbers, scales = require_made_for(self, encoded, layout).numbers, encoded.side
        if scales.shape != (len(layout.names),) or not scales.is_floating_point() or not scales.isfinite().all():
            raise InputError(
                f"side has shape {tuple(scales.shape)} and dtype {scales.dtype}: "
                f"expected {len(layout.names)} finite scales, one for each tensor"
            )
        values = _signs(numbers.values)
        for tensor, scale in zip(layout.views(values).values(), scales, strict=True):
            tensor.mul_(scale)
        return replace(numbers, values=values)


def _signs(values: torch.Tensor) -> torch.Tensor:
    return torch.where(values < 0, -1.0, 1.0)
