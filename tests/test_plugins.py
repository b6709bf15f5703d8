"""Plugin files: what lies beside them is theirs alone, and reading them imports nothing."""

from __future__ import annotations

import sys
from hashlib import sha256

import pytest

from tdabench import plugins
from tdabench.errors import UserError
from tdabench.plugins import Source, code_hash, imported, parsed, sources

from . import run_helpers


@pytest.fixture(autouse=True)
def forget():
    run_helpers.forget_plugins()
    yield
    run_helpers.forget_plugins()


def write(folder, **files):
    """Write files by dotted name, and return the one called ``plugin``."""
    for name, text in files.items():
        path = folder / f"{name.replace('__dot__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "plugin.py"


def test_modules_and_packages_beside_a_plugin_are_imported(tmp_path):
    path = write(
        tmp_path,
        plugin="import helper, kit.part as part, kit\nfrom kit import part as same, top\nX = helper.X, part.Y, top",
        helper="from inner import X",
        inner="X = 3",
        kit__dot____init__="top = 7",
        kit__dot__part="from . import deep\nimport inner\nY = deep.Z + inner.X",
        kit__dot__deep="Z = 4",
    )
    module = imported(str(path))
    assert module.X == (3, 7, 7) and module.same is module.part is module.kit.part
    assert str(tmp_path) not in sys.path
    assert all(
        getattr(sys.modules.get(name), "__file__", None) != str(tmp_path / f"{name}.py") for name in ("helper", "inner")
    )


def test_imports_inside_functions_look_beside_the_plugin_too(tmp_path, monkeypatch):
    path = write(tmp_path, plugin="def f():\n    import late\n    return late.X", late="X = 5")
    module = imported(str(path))
    monkeypatch.chdir("/")
    assert module.f() == 5 and "late" not in sys.modules


def test_plugins_with_siblings_of_one_name_get_their_own(tmp_path):
    found = []
    for folder in ("a", "b"):
        text = "import helper\ndef f():\n    from helper import X\n    return X"
        found.append(imported(str(write(tmp_path / folder, plugin=text, helper=f"X = {folder!r}"))))
    assert [module.helper.X for module in found] == ["a", "b"] == [module.f() for module in found]


def test_python_and_this_package_cannot_be_replaced(tmp_path):
    path = write(tmp_path, plugin="import random, tdabench\nX = random.Random, tdabench", random="", tdabench="")
    assert (__import__("random").Random, sys.modules["tdabench"]) == imported(str(path)).X


def test_others_do_not_see_what_lies_beside_a_plugin(tmp_path):
    imported(str(write(tmp_path, plugin="import helper_of_mine", helper_of_mine="")))
    with pytest.raises(ModuleNotFoundError):
        __import__("helper_of_mine")


def test_a_plugin_is_imported_once_and_never_from_old_bytecode(tmp_path):
    path = write(tmp_path, plugin="X = 1")
    assert imported(str(path)) is imported(str(tmp_path / "." / "plugin.py"))
    path.write_text("X = 2")  # of the same size within the same second
    run_helpers.forget_plugins()
    assert imported(str(path)).X == 2


def test_a_plugin_that_fails_is_one_line_and_leaves_nothing(tmp_path):
    path = write(tmp_path, plugin="import helper", helper="raise ValueError('luck')")
    for _ in range(2):
        with pytest.raises(UserError, match=r"plugin\.py does not import: ValueError: luck"):
            imported(str(path))
    assert not [name for name in sys.modules if name.startswith(plugins.PREFIX) and "." in name]


def test_a_file_of_another_kind_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"notes\.txt is no plugin"):
        sources("no.such.group", (tmp_path / "notes.txt",))
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UserError, match="is no plain file"):
        parsed(Source(tmp_path / "folder.py", "folder.py"))


@pytest.mark.parametrize("changed", ["plugin", "helper", "kit__dot____init__", "kit__dot__part", "kit__dot__deep"])
def test_the_hash_covers_the_plugin_and_what_it_imports_from_beside_it(changed, tmp_path):
    files = {
        "plugin": "import os, numpy, helper\ndef f():\n    import kit.part",
        "helper": "",
        "kit__dot____init__": "",
        "kit__dot__part": "from . import deep",
        "kit__dot__deep": "",
        "unused": "",
    }
    path = write(tmp_path, **files)
    before = code_hash(str(path))
    write(tmp_path, unused="# changed")
    assert code_hash(str(path)) == before
    write(tmp_path, **{changed: files[changed] + "\n# changed"})
    assert code_hash(str(path)) != before


def test_the_hash_of_one_file_is_of_its_name_and_source(tmp_path):
    path = write(tmp_path, plugin="import numpy")
    assert code_hash(str(path)) == sha256(repr([("plugin.py", b"import numpy")]).encode()).hexdigest()[:16]


def test_the_hash_of_an_installed_module_covers_its_package(tmp_path, monkeypatch):
    folder = tmp_path / "installed"
    write(
        folder, __init__="", data="from installed.helper import X\nfrom .other import Y", helper="X = 1", other="Y = 1"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = code_hash("installed.data")
    for name in ("helper", "other"):
        write(folder, **{name: "X = Y = 2"})
        assert code_hash("installed.data") != before
    sys.modules.pop("installed", None)


@pytest.mark.parametrize("text", ["def (", "\0", "from ...above import x"])
def test_what_lies_beside_a_plugin_and_is_no_python_is_one_line(text, tmp_path):
    path = write(tmp_path, plugin="import helper", helper=text)
    with pytest.raises(UserError, match=r"helper\.py is not valid Python: .*; mend the file"):
        code_hash(str(path))
