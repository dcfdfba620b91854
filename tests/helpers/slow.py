"""What `make check` leaves out: folders and files whose tests train, open a browser, start processes or import long.

With -m "not slow" they are not even imported. In other files single tests are marked slow.
"""

from pathlib import Path

from places import ROOT

SLOW = (
    "benchmarks", "chapters", "command", "study", "training",
    "house/test_book.py", "house/test_reach.py", "house/test_execute.py", "house/test_workflow.py",
    "storage/test_store_crash.py",
    "transport/test_link_special.py", "transport/test_modulation.py", "transport/test_schemes.py",
    "wireless/test_adversary_convex.py", "wireless/test_receiver_sionna.py",
)  # fmt: skip


def is_slow(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / "tests" / name) for name in SLOW)
