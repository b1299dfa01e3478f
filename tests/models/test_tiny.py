from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from optaware._io import file_sha256
from optaware.models import tiny_model


def test_the_same_arguments_write_the_same_bytes(tmp_path, tiny_model_dir) -> None:
    again = tiny_model(tmp_path / "again")
    assert sorted(path.name for path in again.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for path in again.iterdir():
        assert file_sha256(path) == file_sha256(tiny_model_dir / path.name), path.name
    other = tiny_model(tmp_path / "other", seed=1)
    assert file_sha256(other / "model.safetensors") != file_sha256(again / "model.safetensors")


def test_the_global_generator_is_left_alone(tmp_path) -> None:
    before = torch.get_rng_state()
    tiny_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 16, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300}])
def test_the_weights_are_exactly_those_of_the_config(tmp_path, sizes) -> None:
    model, info = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path, **sizes), output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.named_parameters())


@given(st.text())
@settings(max_examples=150, deadline=None)
def test_every_text_round_trips_through_the_tokenizer_byte_by_byte(tiny_model_dir, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_model_dir / "tokenizer.json"))
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert len(ids) == len(text.encode())


def test_the_chat_template_and_the_special_tokens(tmp_path, tiny_model_dir) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    chat = [{"role": "user", "content": "hi"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    assert tokenizer.decode(ids) == "<|start|>user\nhi<|end|>\n<|start|>assistant\n"
    assert ids.count(tokenizer.bos_token_id) == 2
    assert tokenizer("hi")["input_ids"] == [71, 72]
    with_bos = AutoTokenizer.from_pretrained(tiny_model(tmp_path, add_bos=True))
    assert with_bos("hi")["input_ids"] == [with_bos.bos_token_id, 71, 72]


@pytest.mark.parametrize("sizes", [{"vocab_size": 258}, {"hidden_size": 30}, {"heads": 4, "kv_heads": 3}])
def test_sizes_that_do_not_fit_are_refused(tmp_path, sizes) -> None:
    with pytest.raises(ValueError):
        tiny_model(tmp_path, **sizes)
    assert not list(tmp_path.iterdir())
