"""The interface of a payload, from a task vector to the numbers that are sent and back, and the plainest one.

The numbers are a flat buffer with a layout of their own, held by a `TaskVector`, so that `transport.send` carries them
as it carries a whole task vector. They are no vector of the tower: sums of factors mean nothing, decode them first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.validated import validated, validated_call, validated_init


@validated_init
@dataclass(frozen=True, eq=False)
class Encoded:
    """What a user sends.

    Attributes
    ----------
    numbers : TaskVector
        Real numbers that tolerate rounding; base and metadata are those of the task vector they were made from.
    side : Tensor
        What must arrive exactly, beside them: positions or scales; empty for most payloads.
    """

    numbers: TaskVector
    side: Tensor

    __repr__ = short_repr


@runtime_checkable
class Payload(Protocol):
    """Mapping of task vectors to what is sent and back. Calls are independent: equal input gives equal output."""

    def numbers_layout(self, layout: Layout) -> Layout:
        """Layout of the numbers for task vectors of this layout; its `size` is how many there are.

        Raises
        ------
        InputError
            if task vectors of this layout cannot be sent so.
        """

    def side_bits(self, layout: Layout) -> int:
        """Bits of the side information for task vectors of this layout."""

    def encode(self, tau: TaskVector) -> Encoded:
        """What stands for a task vector."""

    def decode(self, encoded: Encoded, layout: Layout) -> TaskVector:
        """The task vector of this layout that the numbers, as they arrived, stand for.

        Raises
        ------
        InputError
            if they were made from another layout, or by another payload.
        """


@validated
class Full:
    """The task vector itself."""

    @validated_call
    def numbers_layout(self, layout: Layout) -> Layout:
        """See `Payload`."""
        return layout

    @validated_call
    def side_bits(self, layout: Layout) -> int:
        """None."""
        return 0

    @validated_call
    def encode(self, tau: TaskVector) -> Encoded:
        """See `Payload`."""
        return Encoded(tau, torch.empty(0))

    @validated_call
    def decode(self, encoded: Encoded, layout: Layout) -> TaskVector:
        """See `Payload`."""
        return require_made_for(self, encoded, layout).numbers


@validated_call
def require_made_for(payload: Payload, encoded: Encoded, layout: Layout) -> Encoded:
    """`encoded`; `InputError` unless its numbers have the layout of this payload for task vectors of `layout`."""
    encoded.numbers.layout.require_equal(payload.numbers_layout(layout), "the payload's numbers")
    return encoded
