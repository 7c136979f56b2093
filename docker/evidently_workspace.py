"""Every drift check of data/history into a workspace of `evidently ui`.

A run's snapshot is the object in DVC's cache whose md5 stands in that run's dvc.lock; where it is gone, the
run is left out. The workspace is made anew each time: nothing in it is anybody's only copy.

    python evidently_workspace.py FOLDER
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(os.environ.get("EVERGREEN_REPO", "."))
OUTPUT = re.compile(r"path: reports/drift_snapshot\.json\n(?:\s+(?!path)\w+: .*\n)*?\s+md5: ([0-9a-f]{32})\n")


def snapshots(root: Path) -> Iterator[Path]:
    """The objects, a run each, oldest first."""
    for lock in sorted((root / "data" / "history").glob("*/dvc.lock")):
        for md5 in OUTPUT.findall(lock.read_text(encoding="utf-8")):
            path = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
            if path.is_file():
                yield path


def main(folder: Path) -> None:
    from evidently.core.report import Snapshot
    from evidently.ui.workspace import Workspace

    shutil.rmtree(folder, ignore_errors=True)
    workspace = Workspace.create(str(folder))
    project = workspace.create_project("Evergreen: drift")
    for path in dict.fromkeys(snapshots(ROOT)):
        workspace.add_run(project.id, Snapshot.load(str(path)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
