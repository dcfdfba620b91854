"""The kernel of the running interpreter."""

import asyncio
import sys
from pathlib import Path

import pytest
import zmq
from jupyter_client.kernelspec import KernelSpecManager

from rmtllmf_lib.command.kernel import ThisInterpreter


def test_a_kernel_of_the_same_name_elsewhere_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "kernels" / "python3" / "kernel.json"
    trap.parent.mkdir(parents=True)
    trap.write_text('{"argv": ["/bin/false"], "display_name": "trap", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert KernelSpecManager().get_kernel_spec("python3").argv == ["/bin/false"]
    assert ThisInterpreter(kernel_name="python3").kernel_spec.argv[:2] == [sys.executable, "-m"]


@pytest.mark.skipif(not zmq.has("curve"), reason="this build of ZeroMQ cannot encrypt")
def test_messages_to_the_kernel_are_encrypted(capfd: pytest.CaptureFixture[str]) -> None:
    async def answer() -> tuple[bool, str]:
        kernel = ThisInterpreter(kernel_name="python3")
        await kernel.start_kernel()
        client = kernel.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=300)
            reply = await client.execute_interactive("print(6 * 7)", timeout=300, output_hook=lambda message: None)
            return "curve_secretkey" in kernel.get_connection_info(), reply["content"]["status"]
        finally:
            client.stop_channels()
            await kernel.shutdown_kernel(now=True)

    assert asyncio.run(answer()) == (True, "ok")
    assert "without encryption" not in capfd.readouterr().err
