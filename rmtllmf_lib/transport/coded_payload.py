"""Payloads quantised and sent with a code that is chosen by the user's MSE, and users in outage.

`deliver` assumes that up to the MSE threshold of its code a payload arrives exactly as it was quantised, and that
nothing useful does above it; so the link needs no surrogate. The thresholds rest on 64 words without an error, which
bounds the word error rate and does not make it zero (see `transport.mcs`), and a payload takes many words.
`transport.send` sends the same numbers symbol by symbol, with the errors that are left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import PositiveInt

from rmtllmf_lib.arrays import per_user, real_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.layout import Layout
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.payload.low_rank import LowRank
from rmtllmf_lib.payload.payload import Encoded, Payload
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.transport.digital import Clip, WordBits
from rmtllmf_lib.transport.mcs import Mcs, channel_uses, measured_thresholds
from rmtllmf_lib.transport.quantise import dequantise, quantise
from rmtllmf_lib.validated import validated, validated_call


@validated
class Quantised:
    """A payload whose numbers, divided by their rms, are quantised by `transport.quantise`.

    Parameters
    ----------
    payload : Payload
    bits : int
        b, of each number.
    clip : float
        kappa: the range is [-kappa, kappa] times the rms.
    """

    payload: Payload
    bits: WordBits
    clip: Clip = 3.0

    @validated_call
    def size(self, layout: Layout) -> int:
        """Bits that are sent for a task vector of this layout, side information included."""
        return self.bits * self.payload.numbers_layout(layout).size + self.payload.side_bits(layout)

    @validated_call
    def uses(self, layout: Layout, mcs: Mcs) -> int:
        """Channel uses for a task vector of this layout, whole codewords; side information in words of its own."""
        scheme = mcs.scheme(self.bits, self.clip)
        numbers, side = self.payload.numbers_layout(layout).size, self.payload.side_bits(layout)
        return channel_uses(scheme, numbers) + (channel_uses(mcs.scheme(1, self.clip), side) if side else 0)

    @validated_call
    def arrived(self, tau: TaskVector) -> TaskVector:
        """The task vector as decoded where no bit was wrong."""
        encoded = self.payload.encode(tau)
        numbers = quantised(encoded.numbers, self.bits, self.clip)
        return self.payload.decode(Encoded(numbers, encoded.side), tau.layout)


@validated_call
def quantised(numbers: TaskVector, bits: PositiveInt, clip: float) -> TaskVector:
    """Numbers as `transport.send` delivers them where no bit is wrong: rounded to 2^bits levels, times their rms.

    The rms itself is known to the receiver, as in `transport.send`.
    """
    a, levels = numbers.rms, 2**bits
    index = quantise(numbers.values / (a or 1.0), levels, clip)
    return replace(numbers, values=dequantise(index, levels, clip) * a)


# What a user sends, the best first: the first that its link carries within the budget.
LADDER = (Quantised(LowRank(8), 3), Quantised(LowRank(4), 2))


@dataclass(frozen=True)
class Plan:
    """What a user sends, and how.

    Attributes
    ----------
    sent : Quantised
    mcs : Mcs
    uses : int
        Channel uses.
    """

    sent: Quantised
    mcs: Mcs
    uses: int


@validated_call
def full_uses(layout: Layout) -> int:
    """Channel uses of one whole task vector sent analog, two numbers a symbol: the budget."""
    return math.ceil(layout.size / 2)


@validated_call
def plan(
    mse: float, layout: Layout, budget: PositiveInt | None = None, ladder: Sequence[Quantised] = LADDER
) -> Plan | None:
    """The first payload of a ladder that a user's link carries, with the measured MCS of fewest channel uses.

    Parameters
    ----------
    mse : float
        Of the user's symbols, Eq. (5), known to both ends; 1 or more for a user who is not heard.
    layout : Layout
        Of the task vector.
    budget : int, optional
        Channel uses at most; default `full_uses`.
    ladder : sequence of Quantised
        The best first.

    Returns
    -------
    Plan, or None in outage: no payload of the ladder arrives within the budget.

    Raises
    ------
    InputError
        for a negative MSE, or an empty ladder.
    """
    real_number(mse, "mse", minimum=0)
    if not ladder:
        raise InputError("the ladder is empty: give at least one quantised payload")
    most = full_uses(layout) if budget is None else budget
    decodable = [mcs for mcs, worst in measured_thresholds().items() if mse <= worst]
    for sent in ladder:
        choices = [Plan(sent, mcs, sent.uses(layout, mcs)) for mcs in decodable]
        best = min(choices, key=lambda each: (each.uses, each.mcs.constellation_bits), default=None)
        if best is not None and best.uses <= most:
            return best
    return None


@validated_call
def plans(
    taus: Mapping[str, TaskVector],
    mse: float | Sequence[float],
    budget: PositiveInt | None = None,
    ladder: Sequence[Quantised] = LADDER,
) -> dict[str, Plan | None]:
    """The plan of each user, None for one in outage, see `plan`.

    Parameters
    ----------
    taus : dict of user to TaskVector
    mse : float, or one per user in their order

    Raises
    ------
    InputError
        if `mse` is not one number or one per user, and as `plan` does.
    """
    each = per_user(mse, len(taus), "mse", minimum=0)
    return {name: plan(mu, tau.layout, budget, ladder) for (name, tau), mu in zip(taus.items(), each, strict=True)}


@dataclass(frozen=True, eq=False)
class Delivery:
    """What the station holds after the users have sent their payloads.

    Attributes
    ----------
    arrived : dict of user to TaskVector
        As decoded, without the users in outage.
    plans : dict of user to Plan
        Of those who arrived.
    outage : tuple of users
        Those above the threshold of every payload within the budget; they sent nothing.
    """

    arrived: Mapping[str, TaskVector]
    plans: Mapping[str, Plan]
    outage: tuple[str, ...]

    __repr__ = short_repr


@validated_call
def deliver(
    taus: Mapping[str, TaskVector],
    mse: float | Sequence[float],
    budget: PositiveInt | None = None,
    ladder: Sequence[Quantised] = LADDER,
) -> Delivery:
    """Task vectors of users who each choose payload and code by their MSE.

    Parameters, errors: as `plans`.
    """
    chosen = {name: each for name, each in plans(taus, mse, budget, ladder).items() if each is not None}
    arrived = {name: each.sent.arrived(taus[name]) for name, each in chosen.items()}
    return Delivery(arrived, chosen, tuple(name for name in taus if name not in chosen))
