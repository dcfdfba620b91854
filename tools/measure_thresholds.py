"""Measure over which links the coded schemes decode: word errors on a grid of SNRs, until words are lost.

    python tools/measure_thresholds.py --out rmtllmf_lib/transport/thresholds.csv
    python tools/measure_thresholds.py --out rmtllmf_lib/transport/thresholds.csv --only "QPSK 0.2"

Each scheme has random numbers of its own: measured alone, it gets the rows of a whole run, and the others stay.
A point takes from a few seconds (64-QAM at rate 1/2) to a minute (QPSK at rate 1/5) on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.transport.mcs import GRID_DB, Mcs, word_errors

# With the SNR near the threshold from which the search begins, in units of `GRID_DB`.
SCHEMES = {Mcs(2, 0.5): 6, Mcs(2, 0.2): -17, Mcs(2, 1 / 3): -4, Mcs(4, 0.5): 33, Mcs(6, 0.5): 55}

AT_ONCE = 32  # words; a point ends with the first of these lots in which one is wrong


def measure(mcs: Mcs, start: int, words: int, draws: torch.Generator) -> list[dict[str, float]]:
    """Rows of the table: from the start down to the first SNR with errors, and up until two are without."""
    rows: dict[int, dict[str, float]] = {}

    def errors(step: int) -> int:
        snr_db, sent, wrong = round(step * GRID_DB, 1), 0, 0
        while not wrong and sent < words:
            wrong, sent = word_errors(mcs, snr_db, AT_ONCE, generator=draws), sent + AT_ONCE
        kind = {"constellation_bits": mcs.constellation_bits, "rate": mcs.rate}
        rows[step] = {**kind, "snr_db": snr_db, "words": sent, "errors": wrong}
        print(rows[step], flush=True)
        return wrong

    step = start
    while not errors(step):
        step -= 1
    clean, step = start - step, start
    while clean < 2:
        step += 1
        clean = 0 if errors(step) else clean + 1
    return [rows[step] for step in sorted(rows, reverse=True)]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--words", type=int, default=64, help="sent at each SNR, a multiple of 32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=list(map(str, SCHEMES)), help="measure one scheme and keep the other rows")
    given = parser.parse_args()
    parts = {mcs: pd.DataFrame() for mcs in SCHEMES}
    if given.only:
        old = pd.read_csv(given.out)
        parts = {
            mcs: old[(old["constellation_bits"] == mcs.constellation_bits) & (old["rate"] == mcs.rate)]
            for mcs in SCHEMES
        }
    for number, (mcs, start) in enumerate(SCHEMES.items()):
        if given.only in (None, str(mcs)):
            parts[mcs] = pd.DataFrame(measure(mcs, start, given.words, generator_for(given.seed, number)))
            with atomic_write(given.out) as path:  # after each scheme: the file grows
                pd.concat(parts.values()).to_csv(path, index=False)


if __name__ == "__main__":
    main()
