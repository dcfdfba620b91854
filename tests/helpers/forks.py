"""Forked processes, for tests of kills: no second interpreter has to start."""

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import Any


def forked(function: Callable[..., Any], *arguments: Any) -> int:
    """Run the function in a fork of this process; return its process number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are not copied, which is harmless here
        process = os.fork()
    if process:
        return process
    code = 1
    try:
        function(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(process: int) -> int:
    """Wait for a process; return its exit status, -9 after SIGKILL."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
