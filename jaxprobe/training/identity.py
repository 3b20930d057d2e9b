"""The identity of a trained SAE: what decides it, where it is stored, and the metadata of its file."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxprobe.checkpoints import NATIVE_FILE
from jaxprobe.identity import digest
from jaxprobe.place import Place
from jaxprobe.training.quality import Quality
from jaxprobe.training.settings import SaeToTrain
from jaxprobe.training.tokens import TokenStore
from jaxprobe.workdir import Workdir

_NO_PART = ("checkpoint_seconds", "num_devices")  # settings that decide no number but sums' order


def identity_of(wanted: SaeToTrain, store: TokenStore, prompt_N: np.ndarray) -> dict[str, Any]:
    """Everything that decides the result: the settings that change it, and the tokens.

    Args:
        wanted: What to train.
        store: Where the tokens are.
        prompt_N: The prompt of each token, from `store.token_prompt`.
    """
    fields = {k: v for k, v in dataclasses.asdict(wanted).items() if k not in _NO_PART}
    fields["site"] = str(wanted.site)
    if wanted.architecture == "jump_relu":
        del fields["architecture"]  # runs from before there were others are the same runs
    content = hashlib.sha256("".join(store.prompt_hashes()).encode())
    content.update(np.ascontiguousarray(prompt_N, np.int64).tobytes())
    return {**fields, "store": store.digest, "tokens": content.hexdigest()}


def folder_of(wanted: SaeToTrain, store: TokenStore, work: Workdir) -> Place:
    """The SAE's folder; another seed or other tokens make another SAE, with a folder of its own."""
    identity = identity_of(wanted, store, store.token_prompt(wanted.site))
    return work.saes / f"{wanted.id.replace('/', '_')}-{digest(identity)[:8]}"


def is_trained(folder: Place) -> bool:
    """Whether the folder holds the finished SAE."""
    return (folder / NATIVE_FILE).exists()


def metadata_of(
    wanted: SaeToTrain,
    store: TokenStore,
    identity: Mapping[str, Any],
    quality: Mapping[str, Quality],
) -> dict[str, Any]:
    """The metadata of the SAE's file; without times, so that equal runs make equal files."""
    fingerprint = getattr(store, "fingerprint", {})
    return {
        "id": wanted.id,
        "site": str(wanted.site),
        "model": fingerprint.get("model"),
        "expected_l0": quality["all_tokens"].l0,
        **({"prepend_bos": fingerprint["bos"] is not None} if "bos" in fingerprint else {}),
        "training": {
            "run": identity,
            "held_out": {name: dataclasses.asdict(part) for name, part in quality.items()},
        },
    }
