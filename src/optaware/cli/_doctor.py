from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from optaware.cli._options import AsJson, print_json, print_table

__all__ = ["doctor"]


def doctor(*, json: AsJson = False) -> int:
    """Look at this machine: versions, cores, memory, disk, GPU, cache, data; says what is missing and what to do."""
    from optaware.store import cache_root, environment

    facts = dict(environment())
    packages = facts.pop("packages")
    missing = [name for name in ("torch", "transformers", "peft", "safetensors") if not packages[name]]
    facts |= {name: version or "not installed" for name, version in packages.items()}
    if not missing:
        import torch

        facts["gpus"] = torch.cuda.device_count()
        facts["fused_step"] = _fused_step(facts["gpus"])
    facts["bf16_on_cpu"] = bf16 = _bf16()
    cache = cache_root()
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    facts["cache"] = str(cache)
    facts["cache_free_gb"] = round(shutil.disk_usage(existing).free / 1e9, 1)
    facts["memory_gb"] = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    facts["data_dir"] = os.environ.get("OPTAWARE_DATA_DIR", "")
    advice = [f"{name} is not installed: run `pip install {name}`." for name in missing]
    if facts["cache_free_gb"] < 8:
        advice.append("Less than 8 GB free for the packaged models: set OPTAWARE_CACHE to a larger disk.")
    if bf16 == "converted" and not facts.get("gpus"):
        advice.append("The processor has no bf16 arithmetic, so torch converts: `dtype: fp32` is likely faster here.")
    if json:
        print_json({**facts, "advice": advice})
    else:
        print_table(["what", "found"], [[key, value] for key, value in facts.items()])
        print("\n".join(advice) or "Nothing is missing.")
    return 1 if missing else 0


def _fused_step(gpus: int) -> str:
    if not gpus:
        return "needs a CUDA device"
    return "yes" if importlib.util.find_spec("triton") else "needs triton"


def _bf16() -> str:
    """What multiplies bf16 on this processor, by the flags that Linux shows; "converted" when nothing does."""
    try:
        words = set(Path("/proc/cpuinfo").read_text("utf-8").split())
    except OSError:
        return "unknown"
    named = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512", "bf16": "Arm bf16"}
    return next((name for flag, name in named.items() if flag in words), "converted")
