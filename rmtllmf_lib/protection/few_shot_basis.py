"""Task vectors over a link of little power: users send what a few images do not tell, in directions that these tell.

Station and users have the same memory. Both train a few-shot specialist of each task on it: a vector that both ends
know, with the strongest directions of its change of each weight matrix. In these, user q trains r x r cores on its own
images (`training.cores`), and sends them: a few hundred numbers, spread over all uses of the link with all the power of
a whole task vector (`transport.spreading`). The station weights what arrives for the least mean square error: under
noise without end, the few-shot specialist is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from rmtllmf_lib.arrays import per_user
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.payload.cores import Cores
from rmtllmf_lib.payload.payload import Encoded
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.transport.spreading import despread, spread
from rmtllmf_lib.validated import validated_call

FIT = Recipe(steps=80, batch_size=64, lr=1e-2, warmup_steps=8)  # of the cores


@validated_call
def received_cores(
    numbers: Mapping[str, TaskVector],
    payloads: Mapping[str, Cores],
    rms: float | Sequence[float],
    scenario: Scenario,
    base: Weights,
    *,
    generator: torch.Generator,
) -> dict[str, TaskVector]:
    """The users' task vectors as the station estimates them.

    Parameters
    ----------
    numbers : mapping of user to TaskVector
        The cores of each, from `finetune_cores` or `Cores.encode`.
    payloads : mapping of user to Cores
        With what both ends know of each user's vector, see `resilience.few_shot_specialists`.
    rms : float, or one per user
        Root mean square of what is sent: that of the user's task vector, whose power the cores may take.
    scenario : Scenario
        The station knows the variance of its errors, and the root mean square of each user's cores.
    base : Weights
        theta_base, for the scale "weight".
    generator : torch.Generator
        On the CPU; draws the errors.

    Raises
    ------
    InputError
        for a user without a payload, cores of another payload, and as `Scenario.receive` does.
    """
    if missing := [name for name in numbers if name not in payloads]:
        raise InputError(f"payloads has none of user {missing[0]!r}: expected one for each of {', '.join(numbers)}")
    power = per_user(rms, len(numbers), "rms", minimum=0)
    sent = [spread(each, base.layout, power[seed], seed) for seed, each in enumerate(numbers.values())]
    errors = np.diagonal(scenario.error_cov(sent, base)).tolist() if sent else []
    arrived, found = scenario.receive(sent, base, generator=generator), {}
    for seed, ((name, each), got) in enumerate(zip(numbers.items(), arrived, strict=True)):
        cores = despread(got, each.layout, power[seed], each.rms, errors[seed], seed)
        found[name] = payloads[name].decode(Encoded(cores, torch.empty(0)), base.layout)
    return found
