"""The hash of a method's code: what changes it, and what does not."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tdabench.benchmark.run import code
from tdabench.benchmark.run.code import code_hash, engine_hashes
from tdabench.methods.registry import method_class

from ... import run_helpers

SUBCLASS = """
from tdabench.methods.base import register
from {module} import {base}


@register("{name}")
class Sub({base}):
    \"\"\"A method that adds nothing.\"\"\"

    {line}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with a method, an engine beside it, and a helper that only the engine imports."""
    folder = tmp_path / "coded"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text("X = 1\n")
    (folder / "engine.py").write_text("from . import helper\n\nY = helper.X\n")
    adapter = run_helpers.plugin(folder, "coded-base", body="from .engine import Y")
    adapter.rename(folder / "adapter.py")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "coded"]:
        del sys.modules[name]


@pytest.fixture
def change(monkeypatch):
    """Let a source read as if a comment had been added to it."""
    real = code._source

    def changed(module: str):
        def read(name):
            found = real(name)
            return found and (found[0] + b"# new" * (name == module), found[1])

        monkeypatch.setattr(code, "_source", read)

    yield changed
    monkeypatch.setattr(code, "_source", real)


def loaded(folder: Path, name: str, module: str, base: str, line: str = "version = 1"):
    path = folder / "plugins" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(SUBCLASS.format(name=name, module=module, base=base, line=line))
    run_helpers.forget_plugins()
    return method_class(name, (path,))


@pytest.mark.parametrize(
    "module",
    [
        "tdabench.methods.mucs",  # the base class
        "tdabench.methods.engines.unlearning",  # which only the base imports
        "tdabench.models.denoiser",
        "tdabench.methods.view",
        "tdabench.seeds",
        "tdabench.benchmark.run.worker",
    ],
)
def test_a_subclass_depends_on_what_its_base_imports(module, tmp_path, change):
    cls = loaded(tmp_path, "sub-mucs", "tdabench.methods.mucs", "Mucs")
    before = code_hash(cls)
    assert code_hash(cls) == before
    change(module)
    assert code_hash(cls) != before


@pytest.mark.parametrize("module", ["tdabench.methods.trak", "tdabench.leaderboard.views.sheet", "tdabench.store"])
def test_what_a_method_does_not_compute_with_does_not_count(module, change):
    before = code_hash(method_class("mucs"))
    change(module)
    assert code_hash(method_class("mucs")) == before


def test_engines_are_found_by_imports_and_not_by_words(tmp_path, change):
    cls = loaded(tmp_path, "wordy", "tdabench.methods.pixel", "Pixel", '"""About the kernel and unlearning."""')
    before = code_hash(cls)
    change("tdabench.methods.engines.kernel")
    assert code_hash(cls) == before
    assert "methods.engines.kernel" in " ".join(code._closure({method_class("d-trak").__module__})[0])


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        ("tdabench.methods.engines.projection", True),
        ("tdabench.methods.rows", True),
        ("tdabench.models.denoiser", True),
        ("tdabench.methods.d_trak", False),
        ("tdabench.methods.engines.kernel", False),
    ],
)
def test_kept_gradients_depend_on_what_computes_them_and_not_on_what_uses_them(module, counts, change):
    before = engine_hashes()
    assert set(before) == {"tdabench.methods.engines.features"}
    change(module)
    assert (engine_hashes() != before) == counts


@pytest.mark.parametrize("module", ["coded.adapter", "coded.engine", "coded.helper"])
def test_a_method_of_a_package_depends_on_that_package(module, package, tmp_path, change):
    cls = loaded(tmp_path, "far", "coded.adapter", "Adapter")
    before = code_hash(cls)
    change(module)
    assert code_hash(cls) != before


def test_a_subpackage_that_only_fit_imports_counts(package, tmp_path, change):
    (package / "sub").mkdir()
    (package / "sub" / "__init__.py").write_text("from .impl import f\n")
    (package / "sub" / "impl.py").write_text("f = 1\n")
    adapter = package / "adapter.py"
    adapter.write_text(adapter.read_text().replace("        pass\n", "        from .sub import f\n", 1))
    cls = loaded(tmp_path, "lazy", "coded.adapter", "Adapter")
    before = code_hash(cls)
    import_module("coded.sub")
    assert code_hash(cls) == before
    change("coded.sub.impl")
    assert code_hash(cls) != before


def test_a_module_of_no_distribution_counts_by_its_source(tmp_path, monkeypatch, change):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "myhelper.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    cls = method_class("helped", (run_helpers.plugin(tmp_path, "helped", fit="import myhelper"),))
    before = code_hash(cls)
    change("myhelper")
    assert code_hash(cls) != before


SIBLINGS = {
    "helper.py": "import inner\n\nX = inner.X\n",
    "inner.py": "X = 1\n",
    "kit/__init__.py": "from .part import Y\n",
    "kit/part.py": "Y = 1\n",
    "late.py": "Z = 1\n",
}


def with_siblings(folder: Path, name: str) -> Path:
    for sibling, text in SIBLINGS.items():
        (folder / sibling).parent.mkdir(parents=True, exist_ok=True)
        (folder / sibling).write_text(text)
    return run_helpers.plugin(folder, name, body="import helper, kit.part", fit="from late import Z")


@pytest.mark.parametrize("sibling", SIBLINGS)
def test_what_lies_beside_a_plugin_counts(sibling, tmp_path):
    path = with_siblings(tmp_path, "with-siblings")
    run_helpers.forget_plugins()
    before = code_hash(method_class("with-siblings", (path,)))
    (tmp_path / "unused.py").write_text("X = 1\n")
    (tmp_path / sibling).write_text(SIBLINGS[sibling] + "# new\n")
    run_helpers.forget_plugins()
    assert code_hash(method_class("with-siblings", (path,))) != before
    (tmp_path / sibling).write_text(SIBLINGS[sibling])
    assert code_hash(method_class("with-siblings", (path,))) == before


def test_the_folder_of_a_plugin_does_not_count(tmp_path):
    found = set()
    for folder in ("a", "b"):
        run_helpers.forget_plugins()
        found.add(code_hash(method_class("moved", (with_siblings(tmp_path / folder, "moved"),))))
    assert len(found) == 1


def test_what_authors_import_counts_and_nothing_else(tmp_path, change):
    path = run_helpers.plugin(tmp_path, "bare")
    path.write_text(path.read_text().replace("methods.base import Method,", "methods import Method, Projector,"))
    cls = method_class("bare", (path,))
    before = code_hash(cls)
    change("tdabench.methods.engines.kernel")
    assert code_hash(cls) == before
    change("tdabench.methods.engines.projection")
    assert code_hash(cls) != before


def test_versions_of_imported_packages_count(tmp_path, monkeypatch):
    path = run_helpers.plugin(tmp_path, "scientific", fit="import scipy.linalg")
    cls = method_class("scientific", (path,))
    real, before = importlib.metadata.version, code_hash(cls)

    def hash_with(versions):
        monkeypatch.setattr(code, "version", versions)
        code._version.cache_clear()
        return code_hash(cls)

    assert hash_with(lambda name: "999" if name == "scipy" else real(name)) != before
    assert hash_with(lambda name: "999" if name == "rich" else real(name)) == before
    assert hash_with(lambda name: real(name) + "+another-build") == before
    assert hash_with(real) == before
