"""Payload files: what a user sends, a low-rank payload of a few bits a number, with all that decodes it but the base.

A file of `model.tensor_file`, whose checksum covers everything in it, with one tensor: `codes` (bytes,) uint8, the
quantiser's cells of all numbers in the order of their layout, b bits each, the most significant first, packed without
gaps. Its metadata say `rank`, `bits`, `clip` and `rms`, the hashes of the base and of the vector's layout, and what the
vector says of its making (task, seed, recipe, …).

What a file is decoded to is what arrives over a link that carries the payload without a wrong bit, to the last bit:
`Quantised(LowRank(rank), bits, clip).arrived(tau)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rmtllmf_lib.arrays import file_path, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.model.tensor_file import read_own, write_own
from rmtllmf_lib.model.vector_info import checked_info
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.payload.payload import Encoded
from rmtllmf_lib.transport.coded_payload import Quantised
from rmtllmf_lib.transport.quantise import dequantise, quantise
from rmtllmf_lib.validated import validated_call

KIND = "rmtllmf-payload"

_SAID = ("layout_hash", "rank", "bits", "clip", "rms")
_OF_THE_WHOLE = ("accuracy", "validation_accuracy", "settings")  # claims that are not true of what is decoded


@validated_call
def write_payload(path: str | Path, tau: TaskVector, sent: Quantised) -> None:
    """Write what stands for a task vector.

    Parameters
    ----------
    path : path
        Of the file; one that exists is replaced.
    sent : Quantised
        A `LowRank`, its bits and its clip.

    Raises
    ------
    InputError
        for another payload than `LowRank`, or a rank above a matrix of the vector.
    """
    if not isinstance(sent.payload, LowRank):
        raise InputError(f"the payload is {sent.payload!r}: expected LowRank, the only one that files hold")
    numbers = sent.payload.encode(tau).numbers
    codes = quantise(numbers.values / (numbers.rms or 1.0), 2**sent.bits, sent.clip)
    info = {f"info.{key}": value for key, value in tau.info.items() if key not in _OF_THE_WHOLE}
    said = (tau.layout.hash, sent.payload.rank, sent.bits, sent.clip, numbers.rms)
    about = dict(zip(_SAID, map(str, said), strict=True))
    write_own(path, KIND, {"codes": _packed(codes, sent.bits)}, {"base_hash": tau.base_hash, **about, **info})


@validated_call
def read_payload(path: str | Path, base: Weights, sent: Quantised | None = None) -> TaskVector:
    """Return the task vector that a file of `write_payload` stands for.

    Parameters
    ----------
    base : Weights
        That the vector was fine-tuned from.
    sent : Quantised, optional
        What the file must hold; default: whatever it says.

    Raises
    ------
    InputError
        for a file of another kind, or a damaged one; another base; another payload than `sent`; and a file whose codes
        are not as many as rank and bits ask for.
    """
    path = file_path(path, "path")
    tensors, metadata = read_own(path, KIND)
    found, rms = _settings(path, metadata)
    if sent is not None and found != sent:
        raise InputError(f"{path} holds {_words(found)}: expected {_words(sent)}; pack the vector again")
    if metadata["base_hash"] != base.origin:
        raise InputError(
            f"{path} belongs to another base: {metadata['base_hash'][:12]!r}…, expected {base.origin[:12]}…; give "
            "the backbone that its vector was fine-tuned from"
        )
    if metadata["layout_hash"] != base.layout.hash:
        raise InputError(f"{path} says {metadata['layout_hash'][:12]!r}… of its layout: expected that of its base")
    layout = found.payload.numbers_layout(base.layout)
    info = {key[5:]: value for key, value in metadata.items() if key.startswith("info.")}
    codes, size = tensors.get("codes", torch.empty(0)), -(-layout.size * found.bits // 8)
    if codes.dtype != torch.uint8 or codes.shape != (size,) or len(tensors) > 1:
        raise InputError(
            f"{path} holds codes of shape {tuple(codes.shape)} and {codes.dtype}: expected {size} bytes for "
            f"{_words(found)}; it was made for another rank, get or make it again"
        )
    values = dequantise(_unpacked(codes, found.bits, layout.size), 2**found.bits, found.clip) * rms
    numbers = TaskVector(layout, values, metadata["base_hash"], checked_info(info, path))
    return found.payload.decode(Encoded(numbers, torch.empty(0)), base.layout)


@validated_call
def payload_of_file(path: str | Path) -> Quantised:
    """Return rank, bits and clip of a file of `write_payload`; errors as `read_payload`, without those of a base."""
    path = file_path(path, "path")
    return _settings(path, read_own(path, KIND)[1])[0]


def _settings(path: Path, metadata: Mapping[str, str]) -> tuple[Quantised, float]:
    """The payload, and the rms of its numbers."""
    if missing := [key for key in _SAID if key not in metadata]:
        raise InputError(f"{path} lacks the metadata {', '.join(missing)}: get or make it again")
    found = {key: _number(metadata[key]) for key in _SAID[1:]}
    rank = whole_number(found["rank"], f"rank in {path}", 1, 2**20)
    bits = whole_number(found["bits"], f"bits in {path}", 1, 16)
    clip = real_number(found["clip"], f"clip in {path}", positive=True)
    return Quantised(LowRank(rank), bits, clip), real_number(found["rms"], f"rms in {path}", minimum=0)


def _number(text: str) -> int | float | str:
    """The number that a short text stands for, or the start of the text."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return int(text)
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,20})?(e[+-][0-9]{1,3})?", text) else text[:40]


def _words(sent: Quantised) -> str:
    rank = sent.payload.rank if isinstance(sent.payload, LowRank) else sent.payload
    return f"rank {rank}, {sent.bits} bits, clip {sent.clip:g}"


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Codes (n,) of so many bits as bytes (ceil(n bits / 8),), the most significant bit first."""
    places = np.arange(bits - 1, -1, -1, dtype=np.int32)
    return torch.from_numpy(np.packbits((codes.numpy()[:, None] >> places & 1).astype(np.uint8).ravel()))


def _unpacked(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` codes (count,) int32 of bytes."""
    each = np.unpackbits(packed.numpy(), count=count * bits).reshape(count, bits).astype(np.int32)
    return torch.from_numpy(each @ (1 << np.arange(bits - 1, -1, -1, dtype=np.int32)))
