"""Pytest plugin: nbval compares text exactly, and the numbers inside the text with a tolerance.

A stored and a new output agree when their words are equal and their numbers are close: integers exactly, decimals
within `RTOL` or one unit of the last printed place (a value on the edge rounds either way).
A cell can ask for another tolerance in its metadata, `"nbval": {"rtol": 0.05}`.

Rounding differs between processors, and training amplifies the difference. So a measured integer, recognised by its
unit as in "7 %", "7 points" and "7 ± 4", is compared as a decimal. An interval has a tolerance of its own, whatever the
cell asks for: its centre may move by half of the stored half-width, and the half-width, which is poorly known from a
few seeds, by half of itself or two units of the last place.
Recorded findings and numbers, which are not text, are compared value by value: texts as above, numbers with a fraction
within `RTOL`, and those below `ROUNDING`, which are errors of rounding, not at all.
Not compared are stderr (progress, logging), figures and the numbers behind them, whose findings are printed beside
them, and the value of a cell that ends in `;`, which Jupyter does not show but nbval receives.
"""

import copy
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

RTOL = 0.02
ROUNDING = 1e-9

FIGURE = ("image/svg+xml", "text/csv")

NUMBER = re.compile(r"((?<![\w.])[-+\u2212]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?!\.?\d))")
SPACE = re.compile(r"\s+")
UNIT = re.compile(r"\s*(?:%|points\b|±)")  # behind a number that was measured
INTERVAL = re.compile(r"\s*±\s*$")  # between a centre and its half-width


def _plain(number: str) -> str:
    """Return the number with an ASCII minus, which `float` reads."""
    return number.replace("\u2212", "-")


def _last_place(number: str) -> float:
    """Return the value of one unit of the last printed place of a decimal."""
    mantissa, _, exponent = number.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def close(reference: str, new: str, rtol: float = RTOL, *, measured: bool = False, slack: float = 0.0) -> bool:
    """Return whether two printed numbers are close; integers must be equal unless they were measured."""
    reference, new = _plain(reference), _plain(new)
    if reference == new:
        return True
    if not measured and not any(mark in number for number in (reference, new) for mark in ".eE"):
        return False
    a, b = float(reference), float(new)
    allowed = max(rtol * max(abs(a), abs(b)), min(_last_place(reference), _last_place(new)), slack)
    return math.isclose(a, b, rel_tol=0, abs_tol=allowed * (1 + 1e-9))


def agree(reference: str, new: str, rtol: float = RTOL) -> bool:
    """Return whether two outputs have the same words, up to spacing, and close numbers."""
    old_parts, new_parts = NUMBER.split(reference), NUMBER.split(new)
    words, new_words, numbers, new_numbers = old_parts[::2], new_parts[::2], old_parts[1::2], new_parts[1::2]
    if len(words) != len(new_words):
        return False
    if any(SPACE.sub(" ", a) != SPACE.sub(" ", b) for a, b in zip(words, new_words, strict=True)):
        return False
    for i, (a, b) in enumerate(zip(numbers, new_numbers, strict=True)):
        if INTERVAL.fullmatch(words[i]):  # a half-width
            same = close(a, b, 0.5, measured=True, slack=2 * _last_place(a))
        elif INTERVAL.fullmatch(words[i + 1]):  # a centre
            same = close(a, b, measured=True, slack=abs(float(_plain(numbers[i + 1]))) / 2)
        else:
            same = close(a, b, rtol, measured=bool(UNIT.match(words[i + 1])))
        if not same:
            return False
    return True


def same_record(reference: Any, new: Any, rtol: float = RTOL) -> bool:
    """Return whether two recorded values, as of JSON, agree; numbers without a fraction must be equal."""
    if isinstance(reference, dict) and isinstance(new, dict):
        return reference.keys() == new.keys() and all(same_record(reference[key], new[key], rtol) for key in new)
    if isinstance(reference, list) and isinstance(new, list):
        return len(reference) == len(new) and all(map(lambda a, b: same_record(a, b, rtol), reference, new))
    if isinstance(reference, str) and isinstance(new, str):
        return agree(reference, new, rtol)
    if isinstance(reference, float) and isinstance(new, float) and not (reference.is_integer() and new.is_integer()):
        return math.isclose(reference, new, rel_tol=rtol, abs_tol=ROUNDING)
    return type(reference) is type(new) and reference == new


def _compared(outputs: Iterable[Any], quiet: bool) -> list[Any]:
    """Return copies of the outputs that are compared."""
    found = [
        copy.deepcopy(output)
        for output in outputs
        if not (output["output_type"] == "stream" and output["name"] == "stderr")
        and not (quiet and output["output_type"] == "execute_result")
    ]
    for output in found:
        for kind in FIGURE:
            output.get("data", {}).pop(kind, None)
    return found


def _texts(outputs: list[Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield (kind, holder, field) of every text and record in the outputs, in order."""
    for output in outputs:
        if output["output_type"] == "stream":
            yield output["name"], output, "text"
        for mime in output.get("data", {}):
            yield mime, output["data"], mime


def settle(reference: Iterable[Any], new: Iterable[Any], source: str, rtol: float = RTOL) -> tuple[list, list]:
    """Return the outputs to compare exactly: what agrees with its reference is replaced by it."""
    quiet = source.rstrip().endswith(";")
    old_outputs, new_outputs = _compared(reference, quiet), _compared(new, quiet)
    old_texts, new_texts = defaultdict(list), defaultdict(list)
    for texts, outputs in ((old_texts, old_outputs), (new_texts, new_outputs)):
        for kind, holder, field in _texts(outputs):
            texts[kind].append((holder, field))
    for kind, olds in old_texts.items():
        for (old_holder, field), (new_holder, new_field) in zip(olds, new_texts[kind], strict=False):
            if same_record(old_holder[field], new_holder[new_field], rtol):
                new_holder[new_field] = old_holder[field]
    return old_outputs, new_outputs


def pytest_configure(config: Any) -> None:
    """Apply the tolerance before nbval's own comparison, if nbval is in use."""
    if not getattr(config.option, "nbval", False):
        return
    from nbval.plugin import IPyNbCell

    exact = IPyNbCell.compare_outputs
    if getattr(exact, "with_tolerance", False):
        return

    def compare_outputs(self: Any, test: Any, ref: Any, skip_compare: Any = None) -> bool:
        rtol = self.cell.metadata.get("nbval", {}).get("rtol", RTOL)
        ref, test = settle(ref, test, self.cell.source, rtol)
        return exact(self, test, ref, skip_compare)

    compare_outputs.with_tolerance = True  # type: ignore[attr-defined]  # a function has no such attribute
    IPyNbCell.compare_outputs = compare_outputs
