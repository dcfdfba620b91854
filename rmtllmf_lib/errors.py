"""The one error that a user can mend, and checks that many share."""


class InputError(ValueError):
    """Bad input: the message names the value found, what was expected, and what to do.

    The command line shows the message alone; every other exception is a defect and keeps its traceback.
    """


def require_positive(value: int, what: str) -> None:
    """Raise an InputError unless `value` is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{what} is {value!r}; expected a whole number of 1 or more")


def require_seed(value: int) -> None:
    """Raise an InputError unless `value` is a whole number that numpy's and torch's generators take as a seed."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise InputError(f"seed is {value!r}; expected a whole number from 0 to 2^63 - 1")
