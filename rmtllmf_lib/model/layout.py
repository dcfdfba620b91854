"""Position of each named tensor in one flat buffer with all parameters of a tower, for images or for texts."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmtllmf_lib.arrays import one_of, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.validated import validated_call, validated_init

PREFIX, TEXT_PREFIX = "visual.", "bert."  # of the names of the parameters of CLIP's image tower, and of BERT's

GROUPS = ("embeddings", "attention", "mlp", "norm", "projection")

# The first match counts; the names are open_clip's and those of transformers' BERT.
_GROUP_PATTERNS = (
    ("embeddings", re.compile(r"visual\.(conv1\.\w+|class_embedding|positional_embedding)|bert\.embeddings\..+")),
    ("norm", re.compile(r"bert\.encoder\..*\.LayerNorm\..+")),
    ("attention", re.compile(r"visual\..*\.attn\..+|bert\.encoder\..*\.attention\..+")),
    ("mlp", re.compile(r"visual\..*\.mlp\..+|bert\.encoder\..*\.(intermediate|output)\.dense\..+")),
    ("norm", re.compile(r"visual\.(.*\.)?ln_\w+\.\w+")),
    ("projection", re.compile(r"visual\.proj")),
)


@validated_call
def group_of(name: str) -> str:
    """Group of a parameter of an open_clip vision transformer or of a BERT, one of `GROUPS`.

    "embeddings" are what the paper freezes: patches, class token and positions; of a BERT words, positions and token
    types with the norm of their sum.

    Raises
    ------
    InputError
        if the name is in no group (another kind of tower, or a name without `visual.` or `bert.`).
    """
    for group, pattern in _GROUP_PATTERNS:
        if pattern.fullmatch(name):
            return group
    raise InputError(
        f"the parameter {name!r} belongs to none of the groups {', '.join(GROUPS)}; "
        "groups are defined for open_clip vision transformers and BERT, with names that start with 'visual.' or 'bert.'"
    )


@validated_call
def layout_name(name: str) -> str:
    """A tower's own name of a parameter as in a layout: BERT's begin with `bert.`, others get `visual.` in front."""
    return name if name.startswith(TEXT_PREFIX) else PREFIX + name


@validated_call
def block_of(name: str) -> int | None:
    """Number of the transformer's block that a parameter is in, from 0; None outside of the blocks."""
    found = re.match(r"visual\.transformer\.resblocks\.(\d+)\.|bert\.encoder\.layer\.(\d+)\.", name)
    return int(found[1] or found[2]) if found else None


@validated_call
def listing(items: Sequence[object], most: int = 4) -> str:
    """Number of items and the first `most` of them, as text: '3 (a, b, c)' or '9 (a, b, c, d, …)'."""
    texts = [str(item) for item in items[: whole_number(most, "most")]]  # may come from a file of others
    shown = ", ".join(text if text.isprintable() else repr(text) for text in texts) + (
        ", …" if len(items) > most else ""
    )
    return f"{len(items)} ({shown})"


@validated_init
@dataclass(frozen=True)
class Layout:
    """Names and shapes of the tensors in one flat buffer, sorted by name.

    The order is fixed, so that the same tensors always have the same layout, and the data section of a safetensors file
    is the flat buffer itself.

    Attributes
    ----------
    names : tuple of str
        Each starts with `visual.`, or each with `bert.`.
    shapes : tuple of tuple of int
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError("a layout needs at least one tensor, got none; check the prefix of the names")
        if len(self.names) != len(self.shapes):
            raise InputError(f"a layout needs one shape for each name, got {len(self.names)} and {len(self.shapes)}")
        prefix = TEXT_PREFIX if self.names[0].startswith(TEXT_PREFIX) else PREFIX
        if strange := [name for name in self.names if not name.startswith(prefix)]:
            raise InputError(f"names in a layout start with {prefix!r}, but not {listing(strange)}; add the prefix")
        if any(first >= second for first, second in zip(self.names, self.names[1:], strict=False)):
            raise InputError("names in a layout are sorted and differ; build it with Layout.from_state_dict")

    @classmethod
    @validated_call
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> Layout:
        """Layout of a dict whose names start with `visual.` or `bert.`, whatever its order.

        Raises
        ------
        InputError
            if there is no tensor, a name lacks the prefix, or a tensor is not dense floating-point.
        """
        for name, tensor in state_dict.items():
            require_float(name, tensor)
        names = tuple(sorted(state_dict))
        return cls(names, tuple(tuple(state_dict[name].shape) for name in names))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Start of each tensor in the flat buffer."""
        return (0, *accumulate(self.sizes[:-1]))

    @cached_property
    def size(self) -> int:
        """Length of the flat buffer."""
        return sum(self.sizes)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Group of each tensor, see `group_of`."""
        return tuple(group_of(name) for name in self.names)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of names and shapes, as hexadecimal digits."""
        text = json.dumps([self.names, self.shapes], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @validated_call
    def views(self, values: Tensor) -> dict[str, Tensor]:
        """Named tensors as views of a flat buffer (size,), without copies."""
        if values.shape != (self.size,):
            raise InputError(f"expected a flat buffer of shape ({self.size},), got {tuple(values.shape)}")
        parts = zip(self.names, self.shapes, self.sizes, self.offsets, strict=True)
        return {name: values[start : start + size].view(shape) for name, shape, size, start in parts}

    def empty(self) -> Tensor:
        """New flat buffer (size,) float32 on the CPU, uninitialised."""
        # NumPy asks the system for huge pages, torch does not: the first pass over 345 MB takes a third of the time
        return torch.from_numpy(np.empty(self.size, dtype=np.float32))

    @validated_call
    def flatten(self, state_dict: Mapping[str, Any]) -> Tensor:
        """New flat buffer (size,) float32 on the CPU with a copy of the named tensors, of exactly this layout."""
        Layout.from_state_dict(state_dict).require_equal(self, "the state dict")
        values = self.empty()
        with torch.no_grad():
            for name, view in self.views(values).items():
                view.copy_(state_dict[name])
        return values

    @validated_call
    def ranges(self, group: str) -> list[slice]:
        """Ranges of the flat buffer that hold the tensors of a group, in rising order."""
        one_of(group, GROUPS, "group")
        parts = zip(self.groups, self.offsets, self.sizes, strict=True)
        return [slice(start, start + size) for owner, start, size in parts if owner == group]

    @validated_call
    def require_equal(self, other: Layout, what: str = "the other operand") -> None:
        """Raise an InputError that names the differing entries unless `other` is the same layout.

        Parameters
        ----------
        other : Layout
            The expected layout.
        what : str
            Name of what has the layout `self`, for the message.
        """
        if self is other or self == other:
            return
        mine, theirs = (dict(zip(layout.names, layout.shapes, strict=True)) for layout in (self, other))
        both = [name for name in self.names if name in theirs and mine[name] != theirs[name]]
        faults = {
            "missing": [name for name in other.names if name not in mine],
            "not expected": [name for name in self.names if name not in theirs],
            "other shape": [f"{name}: {mine[name]}, expected {theirs[name]}" for name in both],
        }
        found = "; ".join(f"{label}: {listing(names)}" for label, names in faults.items() if names)
        raise InputError(f"the layout of {what} does not match; {found}; both must be the same architecture")


def require_float(name: str, tensor: Tensor) -> None:
    """Raise an InputError unless the tensor is dense and of a real floating-point type."""
    if not isinstance(tensor, Tensor):
        raise InputError(f"{name!r} is a {type(tensor).__name__}, expected a tensor; give a plain state dict")
    if not tensor.is_floating_point():
        raise InputError(
            f"{name!r} holds {tensor.dtype}, expected floating-point numbers; "
            "integer buffers and complex numbers cannot be merged, leave them out"
        )
    if tensor.layout != torch.strided or tensor.is_meta:
        raise InputError(f"{name!r} is not a dense tensor with data ({tensor.layout}, {tensor.device}); materialise it")


@validated_call
def require_finite(layout: Layout, values: Tensor, what: str = "") -> None:
    """Raise an InputError that names the first tensor with NaN or infinite numbers, if there is one."""
    if math.isfinite(values.sum().item()):  # one fast pass; where it fails, finite numbers may have overflowed
        return
    for name, view in layout.views(values).items():
        count = int((~torch.isfinite(view)).sum())
        if count:
            raise InputError(
                f"{what}{name!r} holds {count} numbers of {view.numel()} that are NaN or infinite; "
                "training diverged or a file is damaged, make it again"
            )
