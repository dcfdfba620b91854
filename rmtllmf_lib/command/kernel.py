"""The kernel that notebooks run on: that of the running interpreter, whatever else is installed for the user."""

from __future__ import annotations

import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default


class ThisInterpreter(AsyncKernelManager):
    """Kernel manager that knows no installed kernels.

    Without folders to look in, only the kernel of the running interpreter is left, under the name "python3": one of
    that name that another environment installed for the user would run the notebook with other packages.
    """

    @default("kernel_spec_manager")
    def _only_native(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])

    @default("transport_encryption")
    def _where_possible(self) -> str:
        # other users of the machine could read code and outputs, and newer kernels warn of that in every run
        return "auto" if zmq.has("curve") else "disabled"
