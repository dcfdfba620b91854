"""The one error that a user can mend."""


class InputError(ValueError):
    """Bad input: the message names the value found, what was expected, and what to do.

    The command line shows the message alone; every other exception is a defect and keeps its traceback.
    """
