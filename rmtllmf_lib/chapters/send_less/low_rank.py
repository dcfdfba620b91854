"""Numbers of what users train in place of whole weights, and of federated averaging in rounds.

They are of the stored results `low_rank_and_rounds`, and of two users trained again.
"""

from __future__ import annotations

import pandas as pd
import torch

from rmtllmf_lib.payload.lora import ATTENTION, Lora
from rmtllmf_lib.training.finetune import recipe_for
from rmtllmf_lib.training.lora import finetune_lora
from rmtllmf_lib.training.suite import Suite


def first_round_above(rows: pd.DataFrame, level: float, link: str = "clean") -> int:
    """Return the first round of federated averaging whose mean is above a level, 0 if none is."""
    points = rows[(rows["method"] == "FedAvg") & (rows["link"] == link) & (rows["mean"] > level)]
    return int(points["round"].min()) if len(points) else 0


def linear_users(suite: Suite, names: tuple[str, str], steps: int, lr: float) -> dict[str, float]:
    """Train two users by L-LoRA and by LoRA, and compare the decoded sum of their factors with the sum of the vectors.

    Parameters
    ----------
    names : two tasks
    steps, lr
        Of the training of each.

    Returns
    -------
    dict with "L-LoRA" and "LoRA": norm of the difference over that of the sum of the vectors.
    """
    found, layout = {}, suite.backbone.weights.layout
    for label, lora in {"L-LoRA": Lora(4, 4.0, ATTENTION, frozen=True), "LoRA": Lora(4, 4.0, ATTENTION)}.items():
        users = [
            finetune_lora(
                suite.backbone, suite.tasks[name], suite.heads[name], lora,
                recipe_for(suite.backbone, steps=steps, lr=lr), generator=torch.Generator().manual_seed(place),
            )
            for place, name in enumerate(names)
        ]  # fmt: skip
        apart = users[0].tau + users[1].tau
        numbers = users[0].encoded.numbers + users[1].encoded.numbers
        found[label] = (lora.decode(lora.encoded(numbers), layout) - apart).norm / apart.norm
    return found
