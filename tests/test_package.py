"""The layout's promises: what the root shadows, what may import what, and what starting up costs."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("datasets", "models", "methods", "benchmark", "leaderboard")
SOURCES = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PICKLES = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "trak": "traker"}

# Each folder may import the ones before it, and every one the root's modules; the leaderboard reads rows only.
MAY_IMPORT = {
    "": set(),
    "datasets": set(),
    "models": {"datasets"},
    "methods": {"datasets", "models"},
    "benchmark": {"datasets", "models", "methods", "leaderboard"},
    "leaderboard": set(),
}
# The rooms of two folders, lowest first: a file may import from its own room and from lower ones.
ROOMS = {
    "benchmark": (
        *("processes", "unpacking", "sheets", "tasks", "truth", "metrics", "sandbox", "run", "contract"),
        *("submission", "attribution", "commands"),
    ),
    "leaderboard": ("rows", "stats", "views", "readme", "check", "page"),
}
CROWDED = 15

every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())


def folder_of(path):
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


def nodes(path, *kinds):
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]


def absolute_imports(path):
    """Return the top-level names of the modules that ``path`` imports from outside the package, wherever it does."""
    names = [alias.name for node in nodes(path, ast.Import) for alias in node.names]
    names += [node.module for node in nodes(path, ast.ImportFrom) if node.level == 0]
    return {name.partition(".")[0] for name in names}


def folders_imported(path):
    """Return the package's folders that ``path`` reaches by relative imports, its own left out."""
    found = set()
    for node in nodes(path, ast.ImportFrom):
        if node.level:
            here = path.parent.relative_to(ROOT).parts
            base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            found |= {next(filter(None, [*base, alias.name])) for alias in node.names}
    return (found & set(FOLDERS)) - {folder_of(path)}


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path): path for path in SOURCES}


def modules_imported(path):
    """Return the package's modules that a file imports, wherever in it; of a folder's name, the modules named."""
    found, package = set(), path.parent.relative_to(ROOT).parts
    for node in nodes(path, ast.ImportFrom):
        if node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module.split(".") if node.module else ()))
            found |= {(*base, alias.name) if (*base, alias.name) in MODULES else base for alias in node.names}
    return found & set(MODULES)


def room_of(module):
    rooms = ROOMS.get(module[0] if module else "", ())
    return rooms.index(module[1]) if len(module) > 1 and module[1] in rooms else None


def python(code, cwd=ROOT):
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_datasets_is_hugging_faces_when_run_from_the_root():
    assert not (ROOT / "datasets" / "__init__.py").exists()
    found = python("import datasets; datasets.load_dataset; print(datasets.__file__)")
    assert not Path(found.strip()).is_relative_to(ROOT / "datasets")


def test_tests_are_no_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_own_datasets_are_found_from_elsewhere(tmp_path):
    assert str(ROOT / "datasets") in python("import tdabench.datasets as d; print(list(d.__path__))", cwd=tmp_path)


def test_every_folder_with_code_is_packaged():
    with_code = {path.parent.relative_to(ROOT) for path in SOURCES}
    expected = {".".join(("tdabench", *folder.parts)) for folder in with_code}
    assert expected == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_legal_file_is_in_the_distribution():
    """`license-files` of the project table takes the place of setuptools' own patterns."""
    there = {path.name for path in ROOT.iterdir() if re.match(r"(?i)licen[cs]e|notice|copying|authors", path.name)}
    assert set(PROJECT["project"]["license-files"]) == there >= {"LICENSE", "NOTICE"}


def test_every_import_is_declared():
    imported = set().union(*map(absolute_imports, SOURCES)) - sys.stdlib_module_names
    extras = PROJECT["project"]["optional-dependencies"]
    declared = [*PROJECT["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in declared}
    assert {DISTRIBUTIONS.get(name, name) for name in imported} <= declared


@every_source
def test_imports_inside_the_package_are_relative(path):
    assert not absolute_imports(path) & {"tdabench", *(set(FOLDERS) - {"datasets"})}


@every_source
def test_imports_follow_the_arrows(path):
    assert folders_imported(path) <= MAY_IMPORT[folder_of(path)]


@every_source
def test_rooms_import_from_lower_rooms_only(path):
    here = module_of(path)
    higher = {m for m in modules_imported(path) if m[:1] == here[:1] and (room_of(m) or 0) > (room_of(here) or 0)}
    assert len(here) < 2 or not higher


@pytest.mark.parametrize("folder", ROOMS)
def test_every_room_is_known(folder):
    assert {module[1] for module in MODULES if module[:1] == (folder,) and len(module) > 1} == set(ROOMS[folder])


def test_no_import_goes_in_a_circle():
    graph = {module: modules_imported(path) - {module} for module, path in MODULES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_folder_is_crowded():
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in SOURCES)
    assert not {folder: n for folder, n in counts.items() if n > CROWDED and folder != "methods"}


@every_source
def test_nothing_is_pickled(path):
    assert not absolute_imports(path) & PICKLES
    calls = {ast.unparse(node) for node in nodes(path, ast.Attribute)}
    assert not calls & {"torch.load", "torch.save"}
    assert not any(node.arg == "allow_pickle" for node in nodes(path, ast.keyword))


def test_leaderboard_does_without_torch():
    found = {path.name: absolute_imports(path) for path in SOURCES if folder_of(path) == "leaderboard"}
    assert not {name: names for name, names in found.items() if names & {"torch", "diffusers", "trak"}}


def test_help_starts_light(tmp_path):
    code = """if True:
        import sys
        from tdabench.benchmark.commands.cli import main
        sys.argv = ["tdabench", "--help"]
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code
        print("loaded:", *{"torch", "diffusers", "trak", "datasets", "sklearn"} & set(sys.modules))
    """
    assert python(code, cwd=tmp_path).splitlines()[-1].split() == ["loaded:"]


def test_no_tasks_truth_takes_more_than_ten_megabytes():
    folders = [path.parent for path in (ROOT / "datasets" / "truth").rglob("manifest.json")]
    sizes = {folder.name: sum(path.stat().st_size for path in folder.iterdir()) for folder in folders}
    assert len(sizes) >= 3 and max(sizes.values()) <= 10e6, sizes
