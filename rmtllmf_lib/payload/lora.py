"""Low-rank adaptation, LoRA [1]: changes `alpha/r B A` of chosen matrices, as the numbers of their factors.

With A frozen at a start that both ends draw from one seed, only B is sent, the change is linear in it, and what the
users send may be added up before it is decoded. That is L-LoRA [2]: each adapted layer's output, linearised in (A, B)
at B = 0, is `W x + alpha/r B A_0 x`, for the derivative with respect to A is 0 there.

References
----------
.. [1] E. J. Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, arXiv:2106.09685.
.. [2] A. Tang et al., "Parameter-efficient multi-task model fusion with partial linearization", ICLR 2024,
   arXiv:2310.04742.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.tensors import singular_triplets
from rmtllmf_lib.model.layout import PREFIX, Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.payload import Encoded, require_made_for
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.validated import validated, validated_call

Matrix: TypeAlias = Literal["in_proj", "q", "k", "v", "out_proj", "c_fc", "c_proj"]

ATTENTION: tuple[Matrix, ...] = ("in_proj", "out_proj")
MLP: tuple[Matrix, ...] = ("c_fc", "c_proj")
ALL = ATTENTION + MLP

ROWS: tuple[Matrix, ...] = ("q", "k", "v")  # of the fused matrix in_proj, a third each
_ENDS = {"in_proj": "attn.in_proj_weight", "out_proj": "attn.out_proj.weight", "c_fc": "mlp.c_fc.weight",
         "c_proj": "mlp.c_proj.weight"} | dict.fromkeys(ROWS, "attn.in_proj_weight")  # fmt: skip
_START = "lora_start"  # metadata: the start of A that the numbers belong to


@dataclass(frozen=True)
class Slot:
    """One adapted matrix: rows of a tensor.

    Attributes
    ----------
    key : str
        Its name: that of the tensor, and of its third for q, k and v.
    tensor : str
    matrix : str
        Which of `Matrix` it is.
    rows : slice
    shape : (m, n)
    """

    key: str
    tensor: str
    matrix: Matrix
    rows: slice
    shape: tuple[int, int]

    @property
    def a(self) -> str:
        """Name of A (r, n) among the numbers."""
        return self.key + ".lora_A"

    @property
    def b(self) -> str:
        """Name of B (m, r) among the numbers."""
        return self.key + ".lora_B"


@validated
class Lora:
    """A change `alpha/r B A` of each chosen matrix of every block; all else is not sent, and is decoded as 0.

    Parameters
    ----------
    rank : int
        r, at most the smaller side of every matrix.
    alpha : float
        The change is scaled by alpha/r.
    matrices : tuple of str
        By open_clip's names: "in_proj" (queries, keys and values as one) or some of its thirds "q", "k" and "v";
        "out_proj", "c_fc", "c_proj". `ATTENTION`, `MLP` and `ALL` are sets of them.
    frozen : bool
        Whether A stays at its start and only B is sent: L-LoRA.
    seed : int
        Of the start of A, known to both ends.
    """

    rank: PositiveInt
    alpha: PositiveFloat
    matrices: Annotated[tuple[Matrix, ...], Field(min_length=1)] = ALL
    frozen: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def __post_init__(self) -> None:
        if len({*self.matrices}) < len(self.matrices):
            raise InputError(f"matrices is {self.matrices}: expected each once")
        if "in_proj" in self.matrices and {*ROWS} & {*self.matrices}:
            raise InputError(f"matrices is {self.matrices}: expected in_proj, or some of its parts q, k and v")

    @property
    def scale(self) -> float:
        """The factor alpha/r of the change."""
        return self.alpha / self.rank

    @validated_call
    def slots(self, layout: Layout) -> list[Slot]:
        """The adapted matrices of a tower, in the order of their names.

        Raises
        ------
        InputError
            for a layout without one of the `matrices`, or a rank above one of them.
        """
        found = []
        for matrix in self.matrices:
            end = f".{_ENDS[matrix]}"
            of_kind = [
                _slot(name, shape, matrix)
                for name, shape in zip(layout.names, layout.shapes, strict=True)
                if name.startswith(f"{PREFIX}transformer.resblocks.") and name.endswith(end) and len(shape) == 2
            ]
            if not of_kind:
                raise InputError(
                    f"the layout has no matrix {matrix!r} among its {len(layout.names)} tensors: expected names that "
                    f"end in {end!r}, as in a transformer's blocks; send the full vector instead"
                )
            found += of_kind
        for slot in found:
            if self.rank > min(slot.shape):
                raise InputError(
                    f"rank is {self.rank}, and {slot.key!r} is a matrix of {slot.shape[0]} by {slot.shape[1]}: "
                    f"expected at most {min(slot.shape)}"
                )
        return sorted(found, key=lambda slot: slot.key)

    @validated_call
    def start(self, layout: Layout) -> dict[str, Tensor]:
        """A at its start (r, n) for each slot's key: uniform in +-1/sqrt(n), as in [1]'s code, from the seed alone."""
        drawn = {}
        for place, slot in enumerate(self.slots(layout)):
            columns = slot.shape[1]
            uniform = torch.rand(self.rank, columns, generator=generator_for(self.seed, place))
            drawn[slot.key] = (2 * uniform - 1) / math.sqrt(columns)
        return drawn

    @validated_call
    def numbers_layout(self, layout: Layout) -> Layout:
        """A and B of each matrix, or B alone, see `Payload`; errors as `slots`."""
        shapes: dict[str, tuple[int, ...]] = {}
        for slot in self.slots(layout):
            shapes[slot.b] = (slot.shape[0], self.rank)
            if not self.frozen:
                shapes[slot.a] = (self.rank, slot.shape[1])
        return Layout.from_shapes(shapes)

    @validated_call
    def side_bits(self, layout: Layout) -> int:
        """None: the seed is known to both ends, as the layout is."""
        return 0

    @validated_call
    def encode(self, tau: TaskVector) -> Encoded:
        """See `Payload`: the factors of the nearest vector of this form, the vector itself where it has it.

        With A frozen, B is the least-squares solution; otherwise both are the strongest singular components, balanced.
        What `finetune_lora` returns needs no encoding.
        """
        layout, tensors = self.numbers_layout(tau.layout), tau.state_dict()
        values = layout.empty()
        factors, start = layout.views(values), self.start(tau.layout)
        for slot in self.slots(tau.layout):
            change = tensors[slot.tensor][slot.rows].double() / self.scale
            if self.frozen:
                A = start[slot.key].double()
                factors[slot.b].copy_(torch.linalg.solve(A @ A.T, A @ change.T).T)
            else:
                U, s, V = singular_triplets(change, self.rank)
                factors[slot.b].copy_(U * s.sqrt())
                factors[slot.a].copy_((V * s.sqrt()).T)
        return self.encoded(replace(tau, layout=layout, values=values))

    @validated_call
    def encoded(self, numbers: TaskVector) -> Encoded:
        """Factors as they are, marked with the start of A that they belong to if it is frozen."""
        info = {**numbers.info, _START: str(self.seed)} if self.frozen else numbers.info
        return Encoded(replace(numbers, info=info), torch.empty(0))

    @validated_call
    def decode(self, encoded: Encoded, layout: Layout) -> TaskVector:
        """See `Payload`; `InputError` also for numbers that belong to another start of A."""
        numbers = require_made_for(self, encoded, layout).numbers
        found = numbers.info.get(_START)
        if self.frozen and found not in (None, str(self.seed)):
            raise InputError(
                f"seed is {self.seed}, and the numbers belong to a start of A with seed {found}: expected the same one"
            )
        factors, values = numbers.state_dict(), torch.zeros(layout.size)
        tensors, start = layout.views(values), self.start(layout)
        for slot in self.slots(layout):
            A = start[slot.key] if self.frozen else factors[slot.a]
            tensors[slot.tensor][slot.rows] = self.scale * (factors[slot.b] @ A)
        info = {key: value for key, value in numbers.info.items() if key != _START}
        return replace(numbers, layout=layout, values=values, info=info)


def _slot(tensor: str, shape: tuple[int, ...], matrix: Matrix) -> Slot:
    rows, columns = shape
    if matrix not in ROWS:
        return Slot(tensor, tensor, matrix, slice(0, rows), (rows, columns))
    third, place = rows // 3, ROWS.index(matrix)
    return Slot(f"{tensor}.{matrix}", tensor, matrix, slice(place * third, (place + 1) * third), (third, columns))
