"""Task vectors over a link of little power: users send what a few images do not tell, in directions that these tell.

Station and users have the same memory. Both train a few-shot specialist of each task on it: a vector that both ends
know, with the strongest directions of its change of each weight matrix. User q sends the r x r cores of what its vector
differs by in these directions (`payload.cores`): a few hundred numbers, spread over all uses of the link with all
the power of a whole task vector (`transport.spreading`). The station weights what arrives for the least mean square
error: under noise without end, the few-shot specialist is left.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import PositiveInt

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.payload.cores import Cores
from rmtllmf_lib.payload.payload import Encoded
from rmtllmf_lib.transport.scenario import Scenario
from rmtllmf_lib.transport.spreading import despread, spread
from rmtllmf_lib.validated import validated_call


@validated_call
def received_in_basis(
    taus: Mapping[str, TaskVector],
    known: Mapping[str, TaskVector],
    rank: PositiveInt,
    scenario: Scenario,
    base: Weights,
    *,
    generator: torch.Generator,
) -> dict[str, TaskVector]:
    """The users' task vectors as the station estimates them.

    Parameters
    ----------
    taus : mapping of user to TaskVector
    known : mapping of user to TaskVector
        What both ends know of each user's, see `resilience.few_shot_specialists`.
    rank : int
        r.
    scenario : Scenario
        The station knows the variance of its errors, and the root mean square of each user's numbers.
    base : Weights
        theta_base, for the scale "weight".
    generator : torch.Generator
        On the CPU; draws the errors.

    Raises
    ------
    InputError
        for a user without a known vector, a rank above the smaller side of a matrix, and as `Scenario.receive` does.
    """
    if missing := [name for name in taus if name not in known]:
        raise InputError(f"known has no vector of user {missing[0]!r}: expected one for each of {', '.join(taus)}")
    payloads = {name: Cores(known[name], rank) for name in taus}
    numbers = {name: payloads[name].encode(tau).numbers for name, tau in taus.items()}
    sent = [spread(numbers[name], tau.layout, tau.rms, seed) for seed, (name, tau) in enumerate(taus.items())]
    errors = np.diagonal(scenario.error_cov(sent, base)).tolist() if sent else []
    arrived = scenario.receive(sent, base, generator=generator)
    found = {}
    for seed, (name, got) in enumerate(zip(taus, arrived, strict=True)):
        each = numbers[name]
        cores = despread(got, each.layout, taus[name].rms, each.rms, errors[seed], seed)
        found[name] = payloads[name].decode(Encoded(cores, torch.empty(0)), taus[name].layout)
    return found
