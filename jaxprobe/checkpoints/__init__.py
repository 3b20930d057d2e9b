"""SAE weight files: each published layout in its own module, one `load_sae` before them all."""

from collections.abc import Mapping
from pathlib import Path

from jaxprobe import assets
from jaxprobe.checkpoints import gemma_scope, native
from jaxprobe.checkpoints.loaded import LoadedSae
from jaxprobe.saes import jump_relu
from jaxprobe.saes.jump_relu import JumpReluSae

LAYOUTS = {".npz": gemma_scope, ".safetensors": native}


def load_sae(source: str | Path) -> LoadedSae:
    """Loads an SAE of any known layout.

    Args:
        source: `hf://OWNER/REPO/FOLDER`, or the path of a folder or weight file. A folder holds
            `params.npz` (Gemma Scope) or `sae.safetensors` (jaxprobe).

    Raises:
        ValueError: No such layout there, or a damaged file.
        AssetError: The source cannot be had.
    """
    path = _weight_file(assets.fetch(str(source)), str(source))
    return LAYOUTS[path.suffix].load(path, str(source))


def encode(sae: LoadedSae | JumpReluSae, x_ND):
    """Latents of activations, `z_NS`; see `saes.jump_relu.encode`. Traceable.

    Args:
        sae: What `load_sae` returned, or the weights alone.
        x_ND: float32 activations at the SAE's site; any leading axes.
    """
    return jump_relu.encode(_weights(sae), x_ND)


def decode(sae: LoadedSae | JumpReluSae, z_NS):
    """Activations that latents stand for, `x_ND`; see `saes.jump_relu.decode`. Traceable."""
    return jump_relu.decode(_weights(sae), z_NS)


def _weights(sae: LoadedSae | JumpReluSae) -> JumpReluSae:
    return sae.sae if isinstance(sae, LoadedSae) else sae


def save_sae(path: str | Path, sae: JumpReluSae, metadata: Mapping[str, object]) -> Path:
    """Saves an SAE as one safetensors file, atomically.

    Args:
        path: The file, or the folder in which to name it `sae.safetensors`.
        sae: The weights.
        metadata: JSON types; `id`, `site` (text) and `expected_l0` come back from `load_sae`.

    Returns:
        The file.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        path = path / native.FILE_NAME
    native.save(path, sae, metadata)
    return path


def _weight_file(path: Path, source: str) -> Path:
    """The file to read: `path` itself, or the one with a known name inside it."""
    if path.is_dir():
        names = [layout.FILE_NAME for layout in LAYOUTS.values()]
        found = [path / name for name in names if (path / name).is_file()]
        if len(found) != 1:
            there = sorted(entry.name for entry in path.iterdir())[:8]
            raise ValueError(
                f"an SAE folder holds exactly one of {' and '.join(names)}; {source} holds"
                f" {', '.join(there) or 'nothing'}; name the folder with the weights, or the file"
            )
        return found[0]
    if path.suffix not in LAYOUTS:
        raise ValueError(
            f"an SAE file ends in {' or '.join(LAYOUTS)}, got {path.name}; name the weight file or"
            " its folder"
        )
    return path
