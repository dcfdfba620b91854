"""Checkpoints of a training run; a resumed run ends with the same bits as an uninterrupted one."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmtllmf_lib.arrays import whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import Layout, layout_name
from rmtllmf_lib.model.tensor_file import read_sealed, write_sealed
from rmtllmf_lib.reprs import short_repr

log = logging.getLogger(__name__)

AVERAGES = ("exp_avg", "exp_avg_sq")  # AdamW's, by their names in its state


@dataclass(frozen=True)
class TrainingState:
    """Weights and AdamW's averages as flat buffers in one safetensors file, with the step and the run's settings.

    The file is written atomically and carries a checksum. The random generators need not be saved: all random numbers
    follow from seed and step, see `loading.Schedule`.

    Attributes
    ----------
    path : Path
    run : mapping of str to JSON values
        Everything that decides the bits of the run; a checkpoint of another run is refused.
    tower, optimizer
        Saved, and restored in place, with the parameters that are not trained.
    """

    path: Path
    run: Mapping[str, Any]
    tower: nn.Module
    optimizer: torch.optim.Optimizer

    __repr__ = short_repr

    def save(self, step: int) -> None:
        """Write the state after `step` steps.

        Raises
        ------
        OSError
            if it cannot be written (disk full): the previous checkpoint stays, and the message says how to resume.
        """
        parameters = self._parameters()
        layout = Layout.from_state_dict(parameters)
        buffers = {"weights": layout.flatten(parameters)}
        averages = {layout_name(name): self.optimizer.state.get(p, {}) for name, p in self.tower.named_parameters()}
        for key in AVERAGES:
            # Frozen parameters have no averages; zeros keep all buffers in the same layout.
            buffers[key] = layout.flatten({n: averages[n].get(key, torch.zeros_like(p)) for n, p in parameters.items()})
        metadata = {"run": json.dumps(self.run, sort_keys=True), "step": str(step)}
        try:
            write_sealed(self.path, buffers, metadata)
        except OSError as error:
            message = f"{error.strerror or error}. Training stopped at step {step}: free some space and start it again"
            if self.path.exists():
                message += "; it will resume from the previous checkpoint"
            raise OSError(error.errno, message, str(self.path)) from error

    def resume(self) -> int:
        """Restore tower and optimiser; return the number of steps done, 0 without a usable checkpoint.

        A file that is damaged, or has no checksum of everything in it, is moved aside with a warning, and training
        starts over.

        Raises
        ------
        InputError
            if the checkpoint belongs to another run; the message names the settings that differ.
        """
        if not self.path.exists():
            return 0
        if not self.path.is_file():
            raise InputError(f"checkpoint {self.path} is not a file: expected the path of a file, existing or not")
        try:
            buffers, metadata = read_sealed(self.path)
            run, step = _parsed(metadata)
        except InputError as error:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            os.replace(self.path, aside)
            log.warning("%s. Moved to %s; training starts over", error, aside)
            return 0
        self._require_same(run)
        self._load(buffers, step)
        return step

    def _parameters(self) -> dict[str, Tensor]:
        return {layout_name(name): parameter.detach() for name, parameter in self.tower.named_parameters()}

    def _require_same(self, other: Mapping[str, Any]) -> None:
        mine = json.loads(json.dumps(self.run))
        differing = [key for key in sorted({*mine, *other}) if mine.get(key) != other.get(key)]
        if differing:
            listed = "; ".join(f"{key} is {other.get(key)!r}, expected {mine.get(key)!r}" for key in differing)
            raise InputError(
                f"checkpoint {self.path} belongs to another run: {listed}. "
                "Finish that run, give this one a checkpoint of its own, or delete the file"
            )

    def _load(self, buffers: Mapping[str, Tensor], step: int) -> None:
        parameters = self._parameters()
        layout = Layout.from_state_dict(parameters)
        for key in ("weights", *AVERAGES):
            if (found := buffers.get(key)) is None or found.dtype != torch.float32 or found.shape != (layout.size,):
                raise InputError(
                    f"checkpoint {self.path} has no buffer {key!r} of {layout.size} float32: delete the file"
                )
        views = {key: layout.views(buffer) for key, buffer in buffers.items()}
        for name, parameter in parameters.items():
            parameter.copy_(views["weights"][name])
        names = {parameter: layout_name(name) for name, parameter in self.tower.named_parameters()}
        trained = [names[parameter] for group in self.optimizer.param_groups for parameter in group["params"]]
        state = {
            # Copies: the buffers may be memory maps of the file, and AdamW updates its averages in place.
            index: {"step": torch.tensor(float(step)), **{key: views[key][name].clone() for key in AVERAGES}}
            for index, name in enumerate(trained)
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _parsed(metadata: Mapping[str, str]) -> tuple[dict[str, Any], int]:
    try:
        run, step = json.loads(metadata["run"]), int(metadata["step"])
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(f"the checkpoint's metadata cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(run, dict):
        raise InputError(f"the checkpoint's run is {run!r}: expected its settings")
    return run, whole_number(step, "the checkpoint's step", minimum=0)
