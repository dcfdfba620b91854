"""What `make check` leaves out: files whose tests train, open a browser, start processes or take long to import.

With -m "not slow" these files are not even imported. In other files single tests are marked slow.
"""

from pathlib import Path

from places import ROOT

SLOW = {
    "chapters/test_slider.py", "chapters/verdicts/test_model.py",
    "command/test_cli.py", "command/test_commands.py", "command/test_import_command.py", "command/test_kernel.py",
    "command/test_model_commands.py", "command/test_runner.py", "command/test_study_command.py",
    "house/test_book.py", "house/test_execute.py", "house/test_workflow.py",
    "storage/test_store_crash.py",
    "study/test_file.py", "study/test_parts.py", "study/test_study.py",
    "training/test_evaluate.py", "training/test_finetune.py", "training/test_finetune_resume.py",
    "training/test_pretrain.py", "training/test_suite.py", "training/test_suite_stopped.py",
    "transport/test_link_special.py", "transport/test_modulation.py", "transport/test_schemes.py",
    "wireless/test_adversary_convex.py", "wireless/test_receiver_sionna.py",
}  # fmt: skip


def is_slow(path: Path) -> bool:
    return any(path == ROOT / "tests" / name for name in SLOW)
