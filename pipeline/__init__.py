"""Evergreen: a recommender that knows when it has gone stale."""

import os

# Read when OpenMP loads, so before torch: threads that wait for each other sleep. Spinning ones made training
# several times slower as soon as anything else ran on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
