from __future__ import annotations

from cyclopts import App

from optaware.cli._options import AsJson, print_json, print_table

__all__ = ["app"]

app = App(name="assets", help="Models and data that arrive as packages, for machines without a model hub.")


@app.command(name="list")
def list_(*, json: AsJson = False) -> int:
    """List the assets, and which of them are here already."""
    from optaware.assets import list_assets

    rows = [
        {
            "asset": asset.name,
            "kind": asset.kind,
            "licence": asset.licence,
            "payload, MB": round(asset.download_bytes / 1e6),
            "on disk, MB": round(asset.bytes / 1e6),
            "here": str(asset.path or "no"),
        }
        for asset in list_assets()
    ]
    if json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [[*row.values()] for row in rows])
    return 0


@app.command
def pull(*names: str) -> int:
    """Download, check and convert assets, once. An interrupted pull resumes.

    Parameters
    ----------
    names
        Names as `optaware assets list` shows them.
    """
    import sys

    from optaware.assets import pull as pull_asset
    from optaware.errors import InputError

    if not names:
        raise InputError.of("asset-missing", "no name", "there is nothing to pull", "See `optaware assets list`.")
    for name in names:
        path = pull_asset(name, progress=lambda event: print(event, file=sys.stderr, flush=True))
        print(f"{name}: {path}")
    return 0
