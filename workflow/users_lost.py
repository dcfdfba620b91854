"""What is left of the fused model when users are lost to a jammer, and what arrives of the others without a code.

    python -m workflow.users_lost --workers 2

writes `book/results/users_lost.csv`, one row per suite and condition, and `users_lost.json`, the studies and versions.
Everything that it computes is stored in parts: stopped, it goes on where it was. Chapter 10 shows the table.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch

from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.study.outage import by_users_lost, outage_study, uncoded_study
from rmtllmf_lib.study.suites import run_over_suites
from rmtllmf_lib.training.suite import Suite, load_suite
from workflow.results import write_results

OUT = Path(__file__).parents[1] / "book" / "results" / "users_lost.csv"
SUITES = 5
USERS, PER_SIZE, IMAGES = 8, 4, 250
STUDIES = (
    outage_study(USERS, PER_SIZE, IMAGES),
    uncoded_study(USERS, (0.01, 0.03, 0.1, 0.3, 0.6, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0), ("task", "weight"), IMAGES),
)


@lru_cache(maxsize=SUITES)
def drawn_suite(seed: int) -> Suite:
    """The eight drawn tasks of one seed."""
    return load_suite(load_backbone("tiny"), seed=seed)


def write(rows: pd.DataFrame, path: Path) -> None:
    """Write the table, and what made it."""
    origin = {"studies": [asdict(study) for study in STUDIES]}
    write_results({path: rows}, path.with_suffix(".json"), "python -m workflow.users_lost", origin)


def main() -> None:
    """Compute both studies over the suites, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--suites", type=int, default=SUITES)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables = [run_over_suites(study, drawn_suite, options.suites, workers=options.workers) for study in STUDIES]
    write(by_users_lost(pd.concat(tables, ignore_index=True)), options.out)


if __name__ == "__main__":
    main()
