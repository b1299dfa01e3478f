from __future__ import annotations

import pytest
import torch

from optaware.errors import InputError, MemoryUsedUp
from optaware.models import is_out_of_memory, memory_errors

# As they were met on H100s whose memory other processes had taken.
ON_A_FULL_CARD = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 46.00 MiB."),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError(
        "Expected mha_graph.execute(handle, variant_pack, workspace_ptr.get()).is_good() to be true, but got false."
    ),
]


@pytest.mark.parametrize("error", ON_A_FULL_CARD, ids=lambda error: str(error)[:30])
def test_what_libraries_say_on_a_full_card_is_known_and_told_in_our_words(error):
    assert is_out_of_memory(error)
    with pytest.raises(MemoryUsedUp, match=r"^the run: .*Run fewer at once") as caught, memory_errors("the run"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("Expected all tensors to be on the same device"),
        InputError.of("some-code", "rows.jsonl", "CUDA error: out of memory", "Mend it."),
    ],
    ids=lambda error: str(error)[:30],
)
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as caught, memory_errors("the run"):
        raise error
    assert caught.value is error
