"""A training run on disk, from which a stopped run goes on to the same bits as one that was never stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import PREFIX, Layout
from rmtllmf_lib.model.tensor_file import read_tensors
from rmtllmf_lib.storage.atomic import atomic_write

log = logging.getLogger(__name__)

AVERAGES = ("exp_avg", "exp_avg_sq")  # AdamW's, by their names in its state


@dataclass(frozen=True)
class TrainingState:
    """Weights and AdamW's averages as flat buffers in one safetensors file, with the step and what run it is.

    The file is written whole or not at all and carries a checksum. Randomness needs no state of its own: it follows
    from seed and step, see `loading.Schedule`.

    Attributes
    ----------
    path : Path
    run : mapping of str to JSON's types
        What decides the bits of the run; a file of another run is refused.
    tower, optimizer
        What is saved, and brought back in place. Parameters without gradient are saved too.
    """

    path: Path
    run: Mapping[str, Any]
    tower: nn.Module
    optimizer: torch.optim.Optimizer

    def save(self, step: int) -> None:
        """Write the state after `step` steps.

        Raises
        ------
        OSError
            if it cannot be written (disk full): the file before it stays, and the message says how to go on.
        """
        parameters = self._parameters()
        layout = Layout.from_state_dict(parameters)
        buffers = {"weights": layout.flatten(parameters)}
        averages = {PREFIX + name: self.optimizer.state.get(p, {}) for name, p in self.tower.named_parameters()}
        for key in AVERAGES:
            # Frozen parameters have no averages; zeros keep the buffers alike.
            buffers[key] = layout.flatten({n: averages[n].get(key, torch.zeros_like(p)) for n, p in parameters.items()})
        metadata = {"run": json.dumps(self.run, sort_keys=True), "step": str(step)}
        try:
            with atomic_write(self.path) as temporary:
                save_file(buffers, temporary, {**metadata, "hash": _checksum(buffers, metadata)})
        except OSError as error:
            told = f"{error.strerror or error}. Training stopped at step {step}: make room and start it again"
            kept = "; it will go on from the checkpoint before" if self.path.exists() else ""
            raise OSError(error.errno, told + kept, str(self.path)) from error

    def resume(self) -> int:
        """Bring tower and optimiser to where the file left them.

        A damaged file is moved aside with a warning, and the run starts over.

        Returns
        -------
        Steps done; 0 where there is no usable file.

        Raises
        ------
        InputError
            if the file is a sound one of another run; the message names what differs.
        """
        if not self.path.exists():
            return 0
        if not self.path.is_file():
            raise InputError(
                f"checkpoint {self.path} is not a file; expected a file's name, in a folder of your choice"
            )
        try:
            buffers, metadata = read_tensors(self.path)
            if metadata.pop("hash", "") != _checksum(buffers, metadata):
                raise InputError(f"{self.path} does not match its checksum")
        except InputError as error:
            aside = self.path.with_name(f"{self.path.name}.damaged")
            os.replace(self.path, aside)
            log.warning("%s. Moved to %s; training starts over", error, aside)
            return 0
        self._require_same(json.loads(metadata["run"]))
        step = int(metadata["step"])
        self._load(buffers, step)
        return step

    def _parameters(self) -> dict[str, Tensor]:
        return {PREFIX + name: parameter.detach() for name, parameter in self.tower.named_parameters()}

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
        views = {key: layout.views(buffer) for key, buffer in buffers.items()}
        for name, parameter in parameters.items():
            parameter.copy_(views["weights"][name])
        names = {parameter: PREFIX + name for name, parameter in self.tower.named_parameters()}
        trained = [names[parameter] for group in self.optimizer.param_groups for parameter in group["params"]]
        state = {
            # Copies: the buffers may be maps of the file, and AdamW writes into its averages.
            index: {"step": torch.tensor(float(step)), **{key: views[key][name].clone() for key in AVERAGES}}
            for index, name in enumerate(trained)
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _checksum(buffers: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for key in ("weights", *AVERAGES):
        if key not in buffers:
            return "incomplete"
        digest.update(buffers[key].contiguous().numpy().data)
    return digest.hexdigest()
