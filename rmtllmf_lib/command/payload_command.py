"""The commands `rmtllmf pack` and `rmtllmf unpack`: task vectors as the few bits that a user sends, and back."""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rmtllmf_lib.command.outputs import OVERWRITE, guard


def pack(
    vector: Annotated[Path, typer.Argument(metavar="FILE", help="Task vector, as 'finetune' writes it.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Payload file to write.")],
    rank: Annotated[int, typer.Option(metavar="NUMBER", help="Rank of each weight matrix of the vector.")] = 8,
    bits: Annotated[int, typer.Option(metavar="NUMBER", help="Bits of each number of the factors.")] = 3,
    overwrite: Annotated[bool, typer.Option(OVERWRITE, help="Replace an existing payload file.")] = False,
) -> None:
    """Write a task vector as the payload that a user sends.

    Each weight matrix is replaced by its strongest singular components, and their
    factors by a few bits a number; everything else is not sent. A checksum covers
    the file, which names the base and what decodes it. 'unpack' makes a task
    vector of it again, for 'fuse' and 'evaluate'.

    \b
    Example:
      rmtllmf finetune signs --out tau
      rmtllmf pack tau/signs.safetensors --rank 8 --bits 3 --out signs.payload
      rmtllmf unpack signs.payload --out received/signs.safetensors
    """
    from rmtllmf_lib.arrays import whole_number
    from rmtllmf_lib.model.task_vector import TaskVector
    from rmtllmf_lib.payload.low_rank import LowRank
    from rmtllmf_lib.transport.coded_payload import Quantised
    from rmtllmf_lib.transport.payload_file import write_payload

    whole_number(rank, "rank")
    whole_number(bits, "bits", 1, 16)
    guard(out, "a payload file", inputs=[vector], overwrite=overwrite)
    sent = Quantised(LowRank(rank), bits)
    tau = TaskVector.load(vector)
    write_payload(out, tau, sent)
    size, whole = out.stat().st_size, 4 * tau.layout.size
    print(f"{out}: {size:,} bytes, {100 * size / whole:.2g} % of the whole vector's {whole:,}", file=sys.stderr)


def unpack(
    payload: Annotated[Path, typer.Argument(metavar="FILE", help="Payload file, as 'pack' writes it.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Task vector to write.")],
    backbone: Annotated[str, typer.Option(metavar="NAME", help="Its base, as in 'finetune'.")] = "tiny",
    overwrite: Annotated[bool, typer.Option(OVERWRITE, help="Replace an existing task vector.")] = False,
) -> None:
    """Write the task vector that a payload file stands for.

    It is the one that a base station decodes where no bit arrived wrong. A file that
    is damaged, or of another base, is refused.

    \b
    Example:
      rmtllmf unpack signs.payload --out received/signs.safetensors
      rmtllmf evaluate received/signs.safetensors
    """
    from rmtllmf_lib.model.backbone import load_backbone
    from rmtllmf_lib.transport.payload_file import payload_of_file, read_payload

    guard(out, "a task vector", inputs=[payload], overwrite=overwrite)
    sent = payload_of_file(payload)  # before the backbone, which may take long to load
    tau = read_payload(payload, load_backbone(backbone).weights, sent)
    tau.save(out)
    print(f"{out}: decoded from rank {getattr(sent.payload, 'rank', '')}, {sent.bits} bits", file=sys.stderr)
