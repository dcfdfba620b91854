"""The options that name a backbone, shared by the commands, and its loading."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

BackboneName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="tiny (ships with the library), ViT-B-16-quickgelu (OpenAI's, through open_clip), or a folder written by"
        " 'rmtllmf pretrain'.",
    ),
]
BackboneFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="OpenAI's weights in open_clip's format.  [default: download them]")
]


def load_backbone(name: str, file: Path | None) -> Any:
    """The backbone of the two options; torch is loaded here, and not for `--help`."""
    from rmtllmf_lib.model import backbone
    from rmtllmf_lib.model.foreign import require_file

    if file is not None:
        require_file(file)
    return backbone.load_backbone(name, weights_file=file)
