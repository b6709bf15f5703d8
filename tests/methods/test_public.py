"""What other packages may import from `tdabench.methods`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tdabench import methods


def test_every_public_name_is_there_and_documented():
    assert set(methods.__all__) == set(methods.HOME)
    for name in methods.__all__:
        assert getattr(methods, name) is not None and name in methods.__doc__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Metod'"):
        methods.Metod  # noqa: B018


def test_importing_the_package_alone_loads_no_torch():
    code = "import sys, tdabench.methods.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
