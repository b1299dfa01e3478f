"""Where results lie: run folders are the truth, named by the hash of their spec."""

from optaware.store._cache import cache_root
from optaware.store._environment import environment
from optaware.store._folder import RunFolder
from optaware.store._pack import Packed, Unpacked, pack_store, unpack_store
from optaware.store._store import Store
from optaware.store._version import STORE_VERSION, check_version

__all__ = [
    "STORE_VERSION",
    "Packed",
    "RunFolder",
    "Store",
    "Unpacked",
    "cache_root",
    "check_version",
    "environment",
    "pack_store",
    "unpack_store",
]
