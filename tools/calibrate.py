"""Measure the drawn tasks' difficulty on a grid of severities, and print the one that comes closest to CLIP's.

    python tools/calibrate.py --out rmtllmf_lib/training/calibration.csv

Each severity and seed is a suite of its own, drawn and trained: about a minute each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.training.calibration import MEASURES, closest, distance, per_task
from rmtllmf_lib.training.suite import load_suite


def main() -> None:
    """Write the table and print the severity that its rule finds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--severities", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.6, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for severity in given.severities:
        for seed in given.seeds:
            measures = per_task(load_suite(load_backbone("tiny"), seed=seed, difficulty=severity))[
                list(MEASURES)
            ].mean()
            rows.append({"severity": severity, "seed": seed, **measures, "distance": distance(measures)})
            print({name: round(value, 4) for name, value in rows[-1].items()}, flush=True)
    table = pd.DataFrame(rows)
    with atomic_write(given.out) as path:
        table.round(4).to_csv(path, index=False)
    print(f"closest to the published: {closest(table):.2f}")


if __name__ == "__main__":
    main()
