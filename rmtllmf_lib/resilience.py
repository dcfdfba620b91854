"""Protection of the fused model (Section III)."""

from __future__ import annotations

from dataclasses import replace

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.task_vector import Weights


def reload_embeddings(fused: Weights, base: Weights) -> Weights:
    """Put the base's patch, class and position embeddings back into a fused model (Section III, first module).

    The base station has them clean: they are theta_base's own. What the noise did to them is undone; what fine-tuning
    had changed in them, if anything, is lost.

    Raises
    ------
    InputError
        if `fused` was not made from `base`.
    """
    fused.layout.require_equal(base.layout, "the fused weights")
    if fused.origin != base.origin:
        raise InputError(
            f"the fused weights stand on base {fused.origin[:12]}…, expected {base.origin[:12]}…: "
            "reload from the base they were fused with"
        )
    values = fused.values.clone()
    for where in base.layout.ranges("embeddings"):
        values[where] = base.values[where]
    return replace(fused, values=values)
