"""Points and differences in parameter space, Eq. (1): `tau_q = theta_ft,q - theta_base`.

A `Weights` is a point, a `TaskVector` a difference. Points cannot be added; differences form a vector space, and a
point plus a difference is a point. Both keep their numbers in one flat float32 buffer.
"""

from __future__ import annotations

import hashlib
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.gram import inner_products
from rmtllmf_lib.model.layout import PREFIX, Layout, layout_name, listing, require_finite
from rmtllmf_lib.model.tensor_file import read_own, write_own
from rmtllmf_lib.model.vector_info import checked_info
from rmtllmf_lib.validated import validated_call, validated_init


@dataclass(frozen=True, eq=False)
class _Flat:
    """Common part of points and differences: a layout with finite float32 numbers, their hash, and a file format."""

    layout: Layout
    values: Tensor
    # whether the caller has checked that every number is finite; saves one pass over the buffer
    checked: InitVar[bool] = field(default=False, kw_only=True)

    def __post_init__(self, checked: bool) -> None:
        values = self.values
        if values.dtype != torch.float32 or values.device.type != "cpu" or values.shape != (self.layout.size,):
            raise InputError(
                f"expected a float32 CPU buffer of shape ({self.layout.size},), "
                f"got {values.dtype} on {values.device} of shape {tuple(values.shape)}"
            )
        if not values.is_contiguous() or values.requires_grad:
            raise InputError("expected a contiguous buffer without gradient; use values.detach().contiguous()")
        if not checked:
            require_finite(self.layout, values)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of layout and numbers, as hexadecimal digits; cached, so never change the numbers in place."""
        return _hash(self.layout, self.values)

    @cached_property
    def norm(self) -> float:
        """Euclidean norm."""
        return math.sqrt(inner_products([self.values])[0, 0])

    @property
    def rms(self) -> float:
        """Root mean square of all entries."""
        return self.norm / math.sqrt(self.layout.size)

    def state_dict(self) -> dict[str, Tensor]:
        """Named tensors as read-only views of the flat buffer."""
        return self.layout.views(self.values)

    def _save(self, path: str | Path, kind: str, metadata: Mapping[str, str]) -> None:
        write_own(path, kind, self.state_dict(), metadata)


@validated_init
@dataclass(frozen=True, eq=False)
class Weights(_Flat):
    """A point theta: all parameters of a tower.

    Attributes
    ----------
    layout : Layout
    values : (layout.size,) float32 tensor on the CPU
        Never change it in place: the hash is cached.
    base_hash : str or None
        Hash of the base to which task vectors were added to get this point; None for a base.
    """

    base_hash: str | None = None

    @classmethod
    @validated_call
    def from_state_dict(cls, state_dict: Mapping[str, Any], prefix: str = PREFIX) -> Weights:
        """Copy the vision tower out of a state dict; other entries (the text tower) are ignored.

        Parameters
        ----------
        state_dict : mapping of name to tensor
            Floating-point tensors of any precision and device; they are converted to float32.
        prefix : str
            Prefix of the vision tower's names; `""` for the state dict of the tower alone.

        Raises
        ------
        InputError
            if no name has the prefix, an entry is not floating-point, or a number is NaN or infinite.
        """
        tower = {PREFIX + name[len(prefix) :]: x for name, x in state_dict.items() if name.startswith(prefix)}
        if not tower:
            raise InputError(
                f"no name in the state dict starts with {prefix!r}, found {listing(list(state_dict))}; "
                "give the prefix of the vision tower"
            )
        layout = Layout.from_state_dict(tower)
        return cls(layout, layout.flatten(tower))

    @classmethod
    @validated_call
    def from_module(cls, module: nn.Module) -> Weights:
        """Copy the parameters of a CLIP model's vision tower, or of a tower itself."""
        named = _named_tensors(module)
        layout = Layout.from_state_dict(named)
        return cls(layout, layout.flatten(named))

    @property
    def origin(self) -> str:
        """Hash of the base of this point: `base_hash`, or its own hash."""
        return self.base_hash or self.hash

    @validated_call
    def load_into(self, module: nn.Module) -> None:
        """Copy the numbers into a CLIP model's vision tower, or into a tower itself, of the same layout."""
        target = _named_tensors(module)
        self.layout.require_equal(Layout.from_state_dict(target), "the weights")
        with torch.no_grad():
            for name, view in self.state_dict().items():
                target[name].copy_(view)

    @validated_call
    def save(self, path: str | Path) -> None:
        """Write a safetensors file with the named tensors."""
        self._save(path, "rmtllmf-weights", {"base_hash": self.base_hash or ""})

    @classmethod
    @validated_call
    def load(cls, path: str | Path) -> Weights:
        """Read a file of `save`; an InputError if it is another kind of file or damaged."""
        layout, values, metadata = _load(path, "rmtllmf-weights")
        return cls(layout, values, metadata["base_hash"] or None)

    @overload
    def __sub__(self, other: Weights) -> TaskVector: ...
    @overload
    def __sub__(self, other: TaskVector) -> Weights: ...
    def __sub__(self, other: object) -> TaskVector | Weights:
        if isinstance(other, TaskVector):
            other.require_base(self)
            return Weights(self.layout, self.values - other.values, other.base_hash)
        if not isinstance(other, Weights):
            return NotImplemented
        self.layout.require_equal(other.layout, "the fine-tuned weights")
        if self.base_hash is not None and self.base_hash != other.origin:
            raise InputError(_other_base("the first point", self.base_hash, other.origin))
        return TaskVector(self.layout, self.values - other.values, other.origin)

    def __add__(self, other: object) -> Weights:
        if isinstance(other, Weights):
            raise TypeError("two Weights are points and cannot be added; add a task vector (a - b) to one of them")
        if not isinstance(other, TaskVector):
            return NotImplemented
        other.require_base(self)
        return Weights(self.layout, self.values + other.values, other.base_hash)

    def __radd__(self, other: object) -> Weights:
        if isinstance(other, TaskVector):
            return self + other
        if _is_zero(other):  # sum([weights, …]) starts with 0 + weights
            raise TypeError("Weights are points and cannot be summed; sum their task vectors, or use fuse()")
        return NotImplemented

    def __repr__(self) -> str:
        derived = f", from base {self.base_hash[:8]}" if self.base_hash else ""
        return f"Weights({self.layout.size:,} numbers, hash {self.hash[:8]}{derived})"


@validated_init
@dataclass(frozen=True, eq=False)
class TaskVector(_Flat):
    """A difference tau = theta_ft - theta_base, Eq. (1).

    Attributes
    ----------
    layout : Layout
    values : (layout.size,) float32 tensor on the CPU
        Never change it in place: hash and norm are cached.
    base_hash : str
        Hash of theta_base; vectors of different bases cannot be mixed.
    info : mapping of str to str
        Metadata of a trained vector (task, accuracy, …); empty for results of algebra.
    """

    base_hash: str
    info: Mapping[str, str] = field(default_factory=dict)

    __array_ufunc__ = None  # NumPy scalars and arrays defer to our operators

    def __post_init__(self, checked: bool) -> None:
        super().__post_init__(checked)
        object.__setattr__(self, "info", dict(self.info))

    @validated_call
    def require_base(self, base: Weights) -> None:
        """Raise an InputError unless the vector has the same base as the point `base`."""
        self.layout.require_equal(base.layout, "the task vector")
        if self.base_hash != base.origin:
            raise InputError(_other_base("the task vector" + _named(self), self.base_hash, base.origin))

    def _like(self, values: Tensor) -> TaskVector:
        return TaskVector(self.layout, values, self.base_hash)

    def _checked(self, other: TaskVector) -> Tensor:
        other.layout.require_equal(self.layout, "the second task vector" + _named(other))
        if other.base_hash != self.base_hash:
            raise InputError(_other_base("the second task vector" + _named(other), other.base_hash, self.base_hash))
        return other.values

    def __add__(self, other: object) -> TaskVector:
        if isinstance(other, TaskVector):
            return self._like(self.values + self._checked(other))
        return self if _is_zero(other) else NotImplemented

    def __radd__(self, other: object) -> TaskVector:
        # sum() starts with the number 0
        return self if _is_zero(other) else NotImplemented

    def __sub__(self, other: object) -> TaskVector:
        if isinstance(other, TaskVector):
            return self._like(self.values - self._checked(other))
        return NotImplemented

    def __neg__(self) -> TaskVector:
        return self._like(-self.values)

    def __mul__(self, other: object) -> TaskVector:
        if not isinstance(other, numbers.Number | np.bool_):
            return NotImplemented
        return self._like(self.values * real_number(other, "the factor of a task vector"))

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> TaskVector:
        if not isinstance(other, numbers.Number | np.bool_):
            return NotImplemented
        divisor = real_number(other, "the divisor of a task vector")
        if divisor == 0:
            raise InputError("a task vector cannot be divided by 0; give a divisor other than 0")
        return self._like(self.values / divisor)

    @validated_call
    def dot(self, other: TaskVector) -> float:
        """Inner product, in float64."""
        return float(inner_products([self.values, self._checked(other)])[0, 1])

    @validated_call
    def only(self, *groups: str) -> TaskVector:
        """The vector with all entries outside the named groups (`layout.GROUPS`) set to 0."""
        values = torch.zeros_like(self.values)
        for group in groups:
            for where in self.layout.ranges(group):
                values[where] = self.values[where]
        return self._like(values)

    @validated_call
    def without(self, *groups: str) -> TaskVector:
        """The vector with the entries of the named groups (`layout.GROUPS`) set to 0."""
        return self - self.only(*groups)

    @validated_call
    def save(self, path: str | Path) -> None:
        """Write a safetensors file with the named tensors; its metadata hold base, layout and info."""
        info = {f"info.{key}": value for key, value in self.info.items()}
        self._save(path, "rmtllmf-task-vector", {"base_hash": self.base_hash, **info})

    @classmethod
    @validated_call
    def load(cls, path: str | Path, base: Weights | None = None) -> TaskVector:
        """Read a file of `save`.

        Raises
        ------
        InputError
            if it is another kind of file or damaged, its metadata are not what they should be (see `vector_info`), or
            `base` is given and is not the vector's.
        """
        layout, values, metadata = _load(path, "rmtllmf-task-vector")
        info = {key[5:]: value for key, value in metadata.items() if key.startswith("info.")}
        tau = cls(layout, values, metadata["base_hash"], checked_info(info, path))
        if base is not None:
            tau.require_base(base)
        return tau

    def __repr__(self) -> str:
        task = f"{self.info['task']}, " if "task" in self.info else ""
        return f"TaskVector({task}{self.layout.size:,} numbers, rms {self.rms:.3g}, base {self.base_hash[:8]})"


@validated_call
def require_alike(taus: Sequence[TaskVector]) -> None:
    """`InputError` unless there is at least one task vector and all have the same layout and base."""
    if not taus:
        raise InputError("got no task vector: give at least one")
    for index, tau in enumerate(taus):
        tau.layout.require_equal(taus[0].layout, f"task vector {index}")
        if tau.base_hash != taus[0].base_hash:
            raise InputError(
                f"task vector {index} belongs to another base than task vector 0: {tau.base_hash[:12]}…, expected "
                f"{taus[0].base_hash[:12]}…; fine-tune from the same base"
            )


@validated_call
def cosine_matrix(taus: Sequence[TaskVector]) -> np.ndarray:
    """Cosine similarity of every pair of task vectors.

    Returns
    -------
    (n, n) float64 array, symmetric, with ones on the diagonal.

    Raises
    ------
    InputError
        if there is no vector, a vector is zero and so has no direction, or layouts or bases differ.
    """
    if not taus:
        raise InputError("a cosine matrix needs at least one task vector, got none")
    gram = inner_products([taus[0]._checked(tau) for tau in taus])
    norms = np.sqrt(np.diag(gram))
    for index, (tau, norm) in enumerate(zip(taus, norms, strict=True)):
        if norm == 0:
            raise InputError(f"task vector {index}{_named(tau)} is zero and has no direction; leave it out")
    cosines = np.clip(gram / np.outer(norms, norms), -1, 1)
    np.fill_diagonal(cosines, 1)
    return cosines


def _is_zero(value: object) -> bool:
    return type(value) is int and value == 0


def _named(tau: TaskVector) -> str:
    return f" of {tau.info['task']!r}" if "task" in tau.info else ""


def _other_base(what: str, found: str, expected: str) -> str:
    return (
        f"{what} belongs to another base: {found[:12]}…, expected {expected[:12]}…; "
        "fine-tune from the same base, vectors of different bases cannot be mixed"
    )


def _named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a tower, or of a CLIP's, by their names in a layout."""
    visual = getattr(module, "visual", None)
    tower = visual if isinstance(visual, nn.Module) else module
    return {layout_name(name): tensor for name, tensor in tower.state_dict().items()}


def _hash(layout: Layout, values: Tensor) -> str:
    digest = hashlib.sha256(layout.hash.encode())
    digest.update(values.numpy().data)
    return digest.hexdigest()


def _load(path: str | Path, kind: str) -> tuple[Layout, Tensor, dict[str, str]]:
    tensors, metadata = read_own(path, kind)
    layout = Layout.from_state_dict(tensors)
    values = layout.flatten(tensors)
    if not re.fullmatch(r"([0-9a-f]{64})?", metadata["base_hash"]):
        raise InputError(f"{path} has base_hash {metadata['base_hash'][:80]!r}: expected a SHA-256 as 64 digits")
    if "hash" in metadata and metadata["hash"] != _hash(layout, values):  # a file of version 1
        raise InputError(f"{path} is damaged: its numbers do not match its hash; get or make it again")
    return layout, values, metadata
