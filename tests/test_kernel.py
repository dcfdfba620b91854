"""The kernel of the running interpreter."""

import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from rmtllmf_lib.kernel import ThisInterpreter


def test_a_kernel_of_the_same_name_elsewhere_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "kernels" / "python3" / "kernel.json"
    trap.parent.mkdir(parents=True)
    trap.write_text('{"argv": ["/bin/false"], "display_name": "trap", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert KernelSpecManager().get_kernel_spec("python3").argv == ["/bin/false"]
    assert ThisInterpreter(kernel_name="python3").kernel_spec.argv[:2] == [sys.executable, "-m"]
