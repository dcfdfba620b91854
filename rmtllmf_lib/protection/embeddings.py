"""The first module of R-MTLLMF (Section III): embeddings from the base, which the station knows without noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rmtllmf_lib.arrays import known_names
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.validated import validated_call

_PREFIXES = {"position": "visual.positional_embedding", "patch": "visual.conv1.", "class": "visual.class_embedding"}
EMBEDDING_KINDS = tuple(_PREFIXES)


@validated_call
def reload_embeddings(fused: Weights, base: Weights, kinds: Sequence[str] | None = None) -> Weights:
    """The fused model with the base's embeddings: the group of that name in its layout (Section III, first module).

    The base station knows theta_base without noise. This removes all noise from the embeddings, and also what
    fine-tuning changed in them, if anything.

    Parameters
    ----------
    kinds : sequence of {"position", "patch", "class"}, optional
        Which of them, for an image tower; default all.

    Raises
    ------
    InputError
        if `fused` was not made from `base`, or for an unknown kind, or one that the tower does not have.
    """
    fused.layout.require_equal(base.layout, "the fused weights")
    if fused.origin != base.origin:
        raise InputError(
            f"the fused weights belong to base {fused.origin[:12]}…, expected {base.origin[:12]}…: "
            "reload from the base they were fused with"
        )
    values, names, groups = fused.values.clone(), fused.layout.names, fused.layout.groups
    if kinds is None:
        chosen = [name for name, group in zip(names, groups, strict=True) if group == "embeddings"]
    else:
        chosen = _of_kinds(names, known_names(kinds, EMBEDDING_KINDS, "kind of embeddings"))
    clean, views = base.state_dict(), fused.layout.views(values)
    for name in chosen:
        views[name].copy_(clean[name])
    return replace(fused, values=values)


def _of_kinds(names: Sequence[str], kinds: Sequence[str]) -> list[str]:
    chosen = []
    for kind in kinds:
        if not (found := [name for name in names if name.startswith(_PREFIXES[kind])]):
            raise InputError(f"kinds has {kind!r}, and the tower no such embeddings: leave kinds out, to reload all")
        chosen += found
    return chosen
