"""Write the made-up study and its report, to be looked at: `python tests/report/render_fixture.py OUT [one-seed]`."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path


def main() -> None:
    out = Path(sys.argv[1])
    spec = importlib.util.spec_from_file_location("report_fixture", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    fixture = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = fixture
    spec.loader.exec_module(fixture)
    options = {"seeds": (0,), "tasks": ("sst2",), "methods": 1, "broken": False} if "one-seed" in sys.argv else {}
    disk = fixture.write_study(out, **options)
    started = time.perf_counter()
    files = fixture.build(disk, out / "report", choices=fixture.grid_choices(disk))
    print(files.html, f"{files.html.stat().st_size} bytes, {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
