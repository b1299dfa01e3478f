"""Where results lie: run folders are the truth, named by the hash of their spec."""

from optaware.store._cache import cache_root
from optaware.store._environment import environment
from optaware.store._folder import RunFolder
from optaware.store._store import Store

__all__ = ["RunFolder", "Store", "cache_root", "environment"]
