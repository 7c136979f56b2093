"""A PostgreSQL server of its own for slow tests, in a folder of its own; skips where it is not installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import free_port


@contextmanager
def postgres(folder: Path, user: str, also_at: str | None = None) -> Iterator[int]:
    """Its port on 127.0.0.1; any password is right, and the database `postgres` is there.

    `also_at`: a further address of this machine, at which anybody is let in.
    """
    binaries = shutil.which("postgres")
    found = binaries or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    programs, port, data = Path(found).resolve().parent, free_port(), folder / "postgres"
    data.mkdir()
    run: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(data, "postgres", "postgres")
        for parent in (folder, *folder.parents):  # pytest's folders are the owner's alone
            if not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o055)
        run = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    made = [*run, programs / "initdb", "-D", data, "-U", user, "--auth=trust"]
    subprocess.run(made, check=True, capture_output=True, cwd=data)
    if also_at:
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all samenet trust\n")
    listen = ",".join(filter(None, ["127.0.0.1", also_at]))
    options = f"-p {port} -c listen_addresses={listen} -c unix_socket_directories={data} -c fsync=off"
    control = [*run, str(programs / "pg_ctl"), "-D", str(data), "-l", str(data / "log"), "-o", options, "-w"]
    subprocess.run([*control, "start"], check=True, capture_output=True, cwd=data)
    try:
        yield port
    finally:
        subprocess.run([*control, "stop", "-m", "immediate"], check=False, capture_output=True, cwd=data)
