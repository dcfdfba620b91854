"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BackboneFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="OpenAI's weights in open_clip's format.  [default: download them]")
]
