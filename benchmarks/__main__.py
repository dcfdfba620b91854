"""Run the benchmarks and print a table of each; the exit status is 1 where a bound is missed."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import sys
from pathlib import Path

import torch

from benchmarks import Row

HERE = Path(__file__).parent


def names() -> list[str]:
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def machine() -> str:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores{load}, {torch.get_num_threads()} threads, {versions}"


def table(rows: list[Row]) -> str:
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  {'measured':>10}  {'bound':>9}  {'':7}"]
    for row in rows:
        value = "–" if row.value is None else f"{row.value:.2f} {row.unit}"
        bound = "" if row.bound is None else f"{'≥' if row.at_least else '≤'} {row.bound:g} {row.unit}"
        lines.append(f"{row.name:{width}}  {value:>10}  {bound:>9}  {row.verdict:7}  {row.detail}".rstrip())
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run, all by default: {', '.join(names())}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the rows to a file, too")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(names())):
        parser.error(f"unknown benchmark {', '.join(unknown)}; known are {', '.join(names())}")
    about = machine()
    print(about, flush=True)
    rows: list[Row] = []
    for name in given.names or names():
        print(f"running {name} …", file=sys.stderr, flush=True)
        found = importlib.import_module(f"benchmarks.bench_{name}").run()
        print(table(found), flush=True)  # at once: a later one that fails must not cost these
        rows += found
    if given.json:
        content = [{**dataclasses.asdict(row), "verdict": row.verdict} for row in rows]
        given.json.write_text(json.dumps({"machine": about, "rows": content}, indent=1) + "\n")
    return int(any(row.verdict == "FAIL" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
