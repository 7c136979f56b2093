"""The energy that a training took: an estimate, by codecarbon where that is installed (the extra `energy`).

Without it: processor seconds at WATTS_A_CORE, and the memory in use at WATTS_A_GIB (codecarbon's figure); a
GPU is not counted then. No machine that is shared or virtual can measure it.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any

import torch

WATTS_A_CORE = 10.0  # of a busy core of a server: some 200 W over 20 cores
WATTS_A_GIB = 0.375  # 3 W for 8 GiB
HOUR = 3600.0


def estimated(cpu_seconds: float, seconds: float, gib: float) -> float:
    """Wh of processor and memory."""
    return (cpu_seconds * WATTS_A_CORE + seconds * gib * WATTS_A_GIB) / HOUR


class Energy:
    """From when it is made until `stop`."""

    def __init__(self) -> None:
        self._tracker = _tracker() if find_spec("codecarbon") else None

    def stop(self, cpu_seconds: float, seconds: float, gib: float) -> tuple[float, str]:
        """(Wh, by what it is estimated)."""
        if self._tracker is not None:
            try:
                self._tracker.stop()
                return 1000 * float(self._tracker.final_emissions_data.energy_consumed), "codecarbon"
            except Exception as error:  # whatever it meets on a machine, a training does not end by it
                logging.getLogger(__name__).warning("codecarbon: %s", error)
        gpu = ", without the GPU" if torch.cuda.is_available() else ""
        return estimated(cpu_seconds, seconds, gib), f"processor seconds and memory{gpu}"


def _tracker() -> Any:
    """Offline: it looks nothing up and writes nothing; None where it cannot start."""
    try:
        from codecarbon import OfflineEmissionsTracker

        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        tracker = OfflineEmissionsTracker(
            country_iso_code="USA",  # of the emissions, which are not told
            save_to_file=False,
            log_level="critical",
            measure_power_secs=15,
            allow_multiple_runs=True,
        )
        tracker.start()
    except Exception as error:
        logging.getLogger(__name__).warning("codecarbon: %s", error)
        return None
    return tracker
