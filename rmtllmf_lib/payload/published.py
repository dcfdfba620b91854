"""Task vectors of models that others have fine-tuned and published, whole or as adapters of PEFT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from rmtllmf_lib.arrays import file_path
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.checkpoints import load_published, require_same_base, task_vector_from_published
from rmtllmf_lib.model.foreign import model_file
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.payload import peft_folder
from rmtllmf_lib.tasks.sources import NAME
from rmtllmf_lib.validated import validated_call


@validated_call
def import_task_vectors(
    files: Mapping[str, str | Path],
    base: Weights,
    out: str | Path,
    *,
    published_base: str | Path | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Read published fine-tuned models and write their task vectors as ``<out>/<task>.safetensors``.

    Parameters
    ----------
    files : mapping of task to path
        Of each fine-tuned model, see `checkpoints.load_published`; or an adapter, see `peft_folder.load_adapter`.
    base, published_base
        As in `checkpoints.task_vector_from_published`.
    overwrite : bool
        Whether to replace existing vectors.

    Returns
    -------
    DataFrame with columns task, names (as in `PublishedTower.kind`, or "PEFT"), change (norm of tau over that of the
    base), note

    Raises
    ------
    InputError
        if a vector exists and may not be replaced, a model equals the base, or two models are equal; and for the
        reasons of `task_vector_from_published` and `load_adapter`. Nothing is written then.
    """
    if not files:
        raise InputError("files is empty: give the file of at least one fine-tuned model")
    if wrong := [task for task in files if not NAME.fullmatch(task)]:
        raise InputError(f"{wrong[0]!r} does not name a task: expected letters, digits, _ . + -")
    folder = file_path(out, "out")
    paths = {task: model_file(file_path(path, "a model's path")) for task, path in files.items()}
    if there := [task for task in paths if (folder / f"{task}.safetensors").exists() and not overwrite]:
        raise InputError(
            f"{folder / there[0]}.safetensors exists already: choose another folder for the output, or overwrite it"
        )
    if published_base is not None:
        require_same_base(load_published(published_base, base).weights, base)
    taus = {task: _task_vector(path, base, task) for task, path in paths.items()}
    owners: dict[str, str] = {}
    for task, tau in taus.items():
        if tau.norm == 0:
            raise InputError(
                f"{paths[task]} is the base itself, nothing was trained: give the model fine-tuned on {task!r}"
            )
        if (other := owners.setdefault(tau.hash, task)) != task:
            raise InputError(f"{paths[other]} and {paths[task]} are the same model: give {other!r} or {task!r} its own")
    folder.mkdir(parents=True, exist_ok=True)
    for task, tau in taus.items():
        tau.save(folder / f"{task}.safetensors")
    rows = [(task, tau.info["names"], tau.norm / base.norm, tau.info.get("note", "")) for task, tau in taus.items()]
    return pd.DataFrame(rows, columns=["task", "names", "change", "note"])


def _task_vector(path: Path, base: Weights, task: str) -> TaskVector:
    """Of a whole model, or of an adapter where the path is the file of one beside its settings."""
    if path.name != peft_folder.MODEL or not path.with_name(peft_folder.CONFIG).is_file():
        return task_vector_from_published(path, base, {"task": task})
    lora, encoded = peft_folder.load_adapter(path.parent, base)
    tau = lora.decode(encoded, base.layout)
    note = f"an adapter of rank {lora.rank} of {', '.join(lora.matrices)}; all else is the base's"
    return replace(tau, info={"file": path.name, "names": "PEFT", "task": task, "note": note})
