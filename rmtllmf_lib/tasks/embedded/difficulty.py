"""How hard the drawn tasks are: wider ranges of cameras and poses, with the same classes, captions and base."""

from __future__ import annotations

from difflib import get_close_matches

from rmtllmf_lib.arrays import real_number
from rmtllmf_lib.errors import InputError

# Severities by name. `calibrated` is chosen by `training.calibration`; `easy` is what the classes are drawn for.
DIFFICULTIES = {"easy": 0.0, "calibrated": 0.6, "hard": 1.0}
DEFAULT = "calibrated"
HARDEST = 3.0  # a specialist still sees more than twice as much as guessing

UNDRAWN = ("digits",)  # of the procedural tasks: real images, whose difficulty is as it is


def severity(difficulty: str | float) -> float:
    """The number that widens cameras and poses (`Camera.at`, `Pose.at`): 0 for `easy`, 1 for `hard`.

    Parameters
    ----------
    difficulty : str or float
        A name of `DIFFICULTIES`, or a number from 0 to `HARDEST`, which may be written as text.

    Raises
    ------
    InputError
        for an unknown name, or a number that is negative, not finite, or larger than `HARDEST`: then the classes can
        no longer be told apart.
    """
    if not isinstance(difficulty, str):
        return real_number(difficulty, "difficulty", minimum=0, maximum=HARDEST)
    if difficulty in DIFFICULTIES:
        return DIFFICULTIES[difficulty]
    try:
        number = float(difficulty)
    except ValueError:
        near = get_close_matches(difficulty, DIFFICULTIES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        names = ", ".join(map(repr, DIFFICULTIES))
        raise InputError(
            f"difficulty is {difficulty!r}: expected {names} or a number up to {HARDEST:g}{hint}"
        ) from None
    return real_number(number, "difficulty", minimum=0, maximum=HARDEST)
