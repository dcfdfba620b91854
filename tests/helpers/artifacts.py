"""What the tests of stored artifacts and of the commands share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from image_files import write_image
from places import ROOT

CONFIG = {"seed": 3, "lam": 0.3, "tasks": ("mnist", "gtsrb"), "nested": {"a": None, "b": [True, 1, 1.5]}}

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text()
scalars |= st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
configs = st.dictionaries(st.text(), values)


def forbidden() -> Any:
    raise AssertionError("build was called although the entry is there")


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A second interpreter, with the library of this checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_python(code: str, *arguments: object) -> tuple[int, str]:
    process = python(code, *arguments)
    try:
        out, err = process.communicate(timeout=300)  # for what hangs; a busy machine is slow
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out + err


def reordered(value: Any) -> Any:
    """The same configuration, said otherwise: keys in reverse order, lists as tuples."""
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(list(value))}
    return tuple(map(reordered, value)) if isinstance(value, list) else value


def typed(value: Any) -> Any:
    """Equal only for what a key must hold equal: Python says 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    return [typed(item) for item in value] if isinstance(value, list) else (type(value), repr(value))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def write_two_tasks(root: Path) -> Path:
    """Two folders of images, `warm` and `cold`, whose three classes differ in colour."""
    for task, shift in (("warm", 0), ("cold", 5)):
        for part, count in (("train", 12), ("test", 6)):
            for label, name in enumerate(("one", "two", "three")):
                for k in range(count):
                    place = root / task / part / name / f"{k}.png"
                    write_image(place, label=4 * label + shift, size=(32, 32), shade=k if part == "train" else 99 + k)
    return root
