"""The folder in which the library keeps what it has computed."""

from __future__ import annotations

import os
from pathlib import Path


def default_root() -> Path:
    """The store's default folder: ``$RMTLLMF_HOME``, or the user's cache folder if that is unset or empty."""
    if home := os.environ.get("RMTLLMF_HOME"):
        return Path(home).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("rmtllmf")
