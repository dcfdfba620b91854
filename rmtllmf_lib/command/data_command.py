"""The command `rmtllmf data check`: what there is of the paper's eight data sets."""

# ruff: noqa: D301 -- in help texts, \b keeps the lines of a paragraph as they are

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rmtllmf_lib.command.app import App
from rmtllmf_lib.errors import InputError

data_app = App(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

PINS = "rmtllmf_pins.json"


@data_app.callback()
def _data() -> None:
    """Look after data sets.

    \b
    Example:
      rmtllmf data check --root data
    """


@data_app.command("check")
def check(
    root: Annotated[Path, typer.Option(metavar="DIR", help="Folder with the data sets.")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which.  [default: all eight]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Count only, without reading the images.")] = False,
    pin: Annotated[
        bool, typer.Option("--pin", help=f"Write the fingerprints of complete data sets to DIR/{PINS}.")
    ] = False,
) -> None:
    """Say what there is of the paper's eight data sets.

    Every image file is read, and the fingerprint of images, labels and splits is
    compared with the pin of an earlier check, if there is one. What is missing is
    told with where to get it. The exit status is 1 unless all are complete and as
    they were pinned. Nothing is downloaded, and no image is changed.

    \b
    States: complete; other size (readable, but not the number of images that its
    authors give); incomplete (some paths are missing); missing; damaged.

    \b
    Examples:
      rmtllmf data check --root data --quick
      rmtllmf data check --root data --pin
      rmtllmf data check dtd svhn --root data
    """
    from rmtllmf_lib.arrays import one_of
    from rmtllmf_lib.storage.atomic import atomic_write
    from rmtllmf_lib.tasks.inventory import EIGHT, inspect, pin_state

    chosen = list(dict.fromkeys(names or EIGHT))
    for name in chosen:
        one_of(name, EIGHT, "data set")
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: expected the folder with the data sets")
    if pin and quick:
        raise InputError("--pin needs the fingerprints, which --quick leaves out: give one of them")
    pins = _pins(root / PINS)
    print(f"{'data set':10}{'state':12}{'classes':>8}{'train':>8}{'test':>8}  pin", flush=True)
    wrong, remedies, new = 0, [], dict(pins)
    for name in chosen:
        holding = inspect(name, root, contents=not quick)
        state = pin_state(holding, pins)
        numbers = [f"{count:,}" if count else "-" for count in (holding.classes, holding.train, holding.test)]
        print(f"{name:10}{holding.state:12}" + "".join(f"{n:>8}" for n in numbers) + f"  {state}".rstrip(), flush=True)
        wrong += holding.state != "complete" or state == "CHANGED"
        if holding.remedy:
            remedies.append(f"{name}: {holding.remedy}")
        if state == "CHANGED":
            remedies.append(f"{name}: other images, labels or splits than those that were pinned in {root / PINS}")
        if holding.state == "complete" and holding.fingerprint:
            new[name] = holding.fingerprint
    for remedy in remedies:
        print(f"\n{remedy}")
    if pin and new != pins:
        with atomic_write(root / PINS) as path:
            path.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"\npins of {len(new)} data sets in {root / PINS}")
    if wrong:
        raise typer.Exit(1)


def _pins(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        pins = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON ({error}): restore it, or delete it and pin anew") from error
    if not isinstance(pins, dict) or not all(isinstance(value, str) for value in pins.values()):
        raise InputError(f"{file} holds no pins by name: restore it, or delete it and pin anew")
    return pins
