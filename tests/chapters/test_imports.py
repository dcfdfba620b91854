"""The chapters on the link start without torch: their tables, figures and sliders never import it."""

import subprocess
import sys

MODULES = (
    "slider", "checks", "system_model.tables", "system_model.figures", "worst_case_noise.tables",
    "worst_case_noise.figures", "worst_case_noise.paper_link",
)  # fmt: skip


def test_chapters_on_the_link_import_no_torch() -> None:
    imports = "; ".join(f"import rmtllmf_lib.chapters.{name}" for name in MODULES)
    command = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
