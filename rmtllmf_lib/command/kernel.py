"""The Jupyter kernel for notebooks: always the running interpreter."""

from __future__ import annotations

import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default


class ThisInterpreter(AsyncKernelManager):
    """Kernel manager that ignores installed kernels.

    Without folders to search, only the kernel of the running interpreter remains, under the name "python3". A kernel
    that another environment installed under that name would run the notebook with other packages.
    """

    @default("kernel_spec_manager")
    def _only_native(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])

    @default("transport_encryption")
    def _where_possible(self) -> str:
        # without encryption other users of the machine could read code and outputs, and newer kernels warn about it
        return "auto" if zmq.has("curve") else "disabled"
