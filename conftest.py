"""For every test, the notebooks included: one thread per process, and numbers compared with a tolerance."""

import os

# Set before numpy or torch is imported: the last digits of a result depend on the number of threads.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

pytest_plugins = ["nbval_numbers"]
