"""Text from outside that no chat model's tokenizer can take for its own control tokens."""

from __future__ import annotations

import re

__all__ = ["CONTROL", "inert"]

_NAMES = (
    r"/?s|/?inst|bos|eos|pad|unk|mask|sep|cls|/?think|/?tool_calls?|/?tool_response|/?tools|/?system"
    r"|(?:start|end)_of_(?:turn|image|text)|extra_id_\d+|unused\d+|fim_\w{1,12}"
)
CONTROL = re.compile(
    # ChatML, Llama 3, Phi, Harmony, Command R and DeepSeek write theirs with bars; the others are names of old custom.
    rf"<(?=[|｜]\S|(?:{_NAMES})>|</?SYS>|/?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|CLS|SEP|MASK|PAD|UNK|BOS|EOS)\])",
    re.IGNORECASE,
)
"""The opening bracket of what may be a control token: `<|im_end|>`, `</s>`, `<<SYS>>`, `[INST]`, `<end_of_turn>`, …"""


def inert(text: str) -> str:
    """`text` with a space behind the bracket of whatever may be a control token of some chat model.

    Servers put messages into a chat template and tokenize the whole, and many of them take a row's "<|im_end|>" for
    the end of its turn. Text without such marks, which is nearly all there is, stays as it is.
    """
    return CONTROL.sub(lambda mark: f"{mark.group()} ", text)
