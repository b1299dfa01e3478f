"""Keep the warnings and progress bars of transformers and the hub's client to themselves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_transformers"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence both inside the block; their verbosity and progress bars are as before afterwards."""
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    # The hub's switches warn when an environment variable overrules them, so they too are thrown inside.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
        hub_verbosity, hub_bars = hub_logging.get_verbosity(), not are_progress_bars_disabled()
        transformers_logging.set_verbosity(logging.ERROR)
        transformers_logging.disable_progress_bar()
        hub_logging.set_verbosity(logging.ERROR)
        disable_progress_bars()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            hub_logging.set_verbosity(hub_verbosity)
            # transformers' switch moves the hub's along with it, so the hub's is set last
            if bars:
                transformers_logging.enable_progress_bar()
            (enable_progress_bars if hub_bars else disable_progress_bars)()
