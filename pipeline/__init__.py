"""Evergreen: a recommender that knows when it has gone stale."""

import os

# NumPy multiplies small matrices here, and a second thread of OpenBLAS mostly waits: with two, an evaluation
# took as long and 109 CPU seconds instead of 66. Read when NumPy is imported; PyTorch has threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
