"""Which file a directory's tensors come from: transformers' own reading of the same folder, or a refusal."""

import json
import os

import numpy as np
import pytest
from penzai import pz
from safetensors.numpy import load_file, save_file

from jaxprobe.assets import AssetError
from jaxprobe.models import load_model
from tests.models import families

torch = pytest.importorskip("torch", reason="torch is missing: install the `parity` extra")
transformers = pytest.importorskip(
    "transformers", reason="transformers is missing: install the `parity` extra"
)
pytestmark = pytest.mark.filterwarnings("ignore::Warning")

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"
# Our label -> the module's name in transformers.
PARTS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_output": "self_attn.o_proj",
    "mlp_gate": "mlp.gate_proj",
    "mlp_up": "mlp.up_proj",
    "mlp_down": "mlp.down_proj",
    "pre_attention_norm": "input_layernorm",
    "pre_mlp_norm": "post_attention_layernorm",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(config, tensors, other tensors) of a tiny Llama with tied embeddings."""
    folder = tmp_path_factory.mktemp("made")
    families.make("llama2", tie_word_embeddings=True).save_pretrained(folder)
    tensors = load_file(folder / SINGLE)
    other = {name: value * np.float32(1.5) for name, value in tensors.items()}
    return json.loads((folder / "config.json").read_text()), tensors, other


class Folder:
    """A directory that a case fills."""

    def __init__(self, path, made):
        self.path = path
        self.config, self.tensors, self.other = made
        self.write_config()

    def write_config(self, **changes):
        (self.path / "config.json").write_text(json.dumps({**self.config, **changes}))

    def save(self, name, tensors):
        save_file(tensors, self.path / name, metadata={"format": "pt"})

    def halves(self, tensors):
        names = sorted(tensors)
        return [{n: tensors[n] for n in half} for half in (names[:12], names[12:])]

    def shards(self, tensors=None, first=None, second=None, files=None):
        """Two shards and their index; the arguments add to a shard or change the index's files."""
        one, two = self.halves(tensors or self.tensors)
        weight_map = {**dict.fromkeys(one, FIRST), **dict.fromkeys(two, SECOND), **(files or {})}
        self.save(FIRST, {**one, **(first or {})})
        self.save(SECOND, {**two, **(second or {})})
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (self.path / INDEX).write_text(json.dumps(index))


def _with_file(folder, name, text="{}"):
    (folder.path / name).write_text(text)


def _in_blobs(folder):
    """As the Hub's cache keeps files: links to blobs outside the folder."""
    blobs = folder.path.parent / f"{folder.path.name}-blobs"
    blobs.mkdir()
    folder.shards()
    for name in (FIRST, SECOND):
        os.rename(folder.path / name, blobs / name)
        (folder.path / name).symlink_to(blobs / name)


def _edge(folder, of):
    """A tensor at the border of the two shards, of the first or the second one."""
    names = sorted(folder.tensors)
    return names[0] if of == 1 else names[-1]


SAME = {
    "one file": lambda f: f.save(SINGLE, f.tensors),
    "shards": lambda f: f.shards(),
    "one file beside another model's shards": lambda f: (
        f.save(SINGLE, f.tensors),
        f.shards(f.other),
    ),
    "one file beside a broken index": lambda f: (
        f.save(SINGLE, f.tensors),
        _with_file(f, INDEX, "["),
    ),
    "equal copies in both shards": lambda f: f.shards(second={_edge(f, 1): f.tensors[_edge(f, 1)]}),
    "an old shard that the index does not name": lambda f: (
        f.shards(),
        f.save("model-00003-of-00003.safetensors", f.other),
    ),
    "a variant beside": lambda f: (
        f.save(SINGLE, f.tensors),
        f.save("model.fp16.safetensors", f.other),
    ),
    "Mistral's consolidated file beside": lambda f: (
        f.save(SINGLE, f.tensors),
        f.save("consolidated.safetensors", f.other),
    ),
    "an adapter's weights without its config beside": lambda f: (
        f.save(SINGLE, f.tensors),
        f.save("adapter_model.safetensors", f.other),
    ),
    "pickles beside": lambda f: (
        f.save(SINGLE, f.tensors),
        _with_file(f, "pytorch_model.bin", "junk"),
    ),
    "an output matrix that is not tied": lambda f: f.save(
        SINGLE, {**f.tensors, "lm_head.weight": f.other["model.embed_tokens.weight"]}
    ),
    "the base model's names": lambda f: f.save(
        SINGLE, {name.removeprefix("model."): value for name, value in f.tensors.items()}
    ),
    "another dtype in the config": lambda f: (
        f.save(SINGLE, f.tensors),
        f.write_config(dtype="float16"),
    ),
    "links into the Hub's cache": _in_blobs,
}

REFUSED = {
    "an old copy in the second shard": (
        lambda f: f.shards(second={_edge(f, 1): f.other[_edge(f, 1)]}),
        f"{FIRST} for the tensor .* but {FIRST} and {SECOND} hold different ones",
    ),
    "an old copy in the first shard": (
        lambda f: f.shards(first={_edge(f, 2): f.other[_edge(f, 2)]}),
        f"{SECOND} for the tensor .* but {FIRST} and {SECOND} hold different ones",
    ),
    "a copy of another shape": (
        lambda f: f.shards(second={_edge(f, 1): np.zeros(3, np.float32)}),
        "hold different ones",
    ),
    "an index that gives a tensor to the wrong shard": (
        lambda f: f.shards(files={_edge(f, 1): SECOND}),
        f"{INDEX} names {SECOND} for the tensor .*, which that file lacks",
    ),
    "an index with a tensor that no file has": (
        lambda f: f.shards(files={"model.layers.9.mlp.up_proj.weight": FIRST}),
        "which that file lacks",
    ),
    "a variant alone": (lambda f: f.save("model.fp16.safetensors", f.tensors), "must hold model"),
    "shards without an index": (
        lambda f: (f.shards(), os.unlink(f.path / INDEX)),
        f"must hold {SINGLE} or {INDEX}, got {FIRST}",
    ),
    "Mistral's consolidated file alone": (
        lambda f: f.save("consolidated.safetensors", f.tensors),
        "got consolidated.safetensors",
    ),
    "an adapter beside": (
        lambda f: (f.save(SINGLE, f.tensors), _with_file(f, "adapter_config.json")),
        "merge the adapter",
    ),
    "only the output matrix of a tied pair": (
        lambda f: f.save(
            SINGLE,
            {n.replace("model.embed_tokens", "lm_head"): value for n, value in f.tensors.items()},
        ),
        r"must hold one tensor `\.\.\.embed_tokens\.weight`, got none",
    ),
    "two embeddings": (
        lambda f: f.save(SINGLE, {**f.tensors, "embed_tokens.weight": np.ones(3, np.float32)}),
        "got embed_tokens.weight, model.embed_tokens.weight",
    ),
    "a wrapper's names": (
        lambda f: f.save(SINGLE, {f"_orig_mod.{n}": value for n, value in f.tensors.items()}),
        r"must name its tensors `model\.embed_tokens\.weight` or",
    ),
    "more blocks than the config": (
        lambda f: f.save(SINGLE, {**f.tensors, "model.layers.3.a": np.ones(3, np.float32)}),
        "tensors of 3 blocks.*got 4",
    ),
    "quantised weights": (
        lambda f: (
            f.save(SINGLE, f.tensors),
            f.write_config(quantization_config={"quant_method": "bitsandbytes"}),
        ),
        "`quantization_config`",
    ),
    "weights under a name of their own": (
        lambda f: (f.save(SINGLE, f.tensors), f.write_config(transformers_weights="x.safetensors")),
        "`transformers_weights`",
    ),
    "a weight that is not a number": (
        lambda f: f.save(SINGLE, {**f.tensors, UP: f.tensors[UP] * np.float32(np.nan)}),
        f"model.safetensors.*`{UP}` must be finite",
    ),
}
for _name in ("", ".", "..", "../model.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin"):
    REFUSED[f"an index that names {_name!r}"] = (
        lambda f, name=_name: f.shards(files={UP: name}),
        f"{INDEX}.*names.*{_name}",
    )


def parameters(path):
    stack = load_model(path, "float32").parameters
    found = pz.select(stack).at_instances_of(pz.ParameterValue).get_sequence()
    return {p.label: np.asarray(p.value.data_array) for p in found}


@pytest.mark.parametrize("case", SAME)
def test_the_same_tensors_as_transformers(tmp_path, made, case):
    SAME[case](Folder(tmp_path, made))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    state = theirs.model.state_dict()
    for label, got in parameters(tmp_path).items():
        name = "embed_tokens"
        if label != "embedding":
            _, block, part = label.split(".")
            name = f"layers.{block}.{PARTS[part]}"
        wanted = state[f"{name}.weight"].numpy()
        np.testing.assert_array_equal(np.sort(got.ravel()), np.sort(wanted.ravel()), label)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_ambiguous_is_refused_with_the_files_names(tmp_path, made, case):
    fill, match = REFUSED[case]
    fill(Folder(tmp_path, made))
    with pytest.raises(ValueError, match=match) as caught:
        load_model(tmp_path)
    assert tmp_path.name in str(caught.value)


def test_names_that_transformers_would_start_from_random_numbers_are_refused(tmp_path):
    """Under these roots `from_pretrained` finds nothing of a text model and warns only."""
    families.make("pythia").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / SINGLE)
    for root in ("model.", "language_model.model.", "module.gpt_neox.", "transformer."):
        moved = {name.replace("gpt_neox.", root): value for name, value in tensors.items()}
        save_file(moved, tmp_path / SINGLE)
        with pytest.raises(ValueError, match=r"must name its tensors `gpt_neox\.embed_in\.weight`"):
            load_model(tmp_path)


def test_arguments_that_lead_to_no_model(tmp_path):
    with pytest.raises(ValueError, match=r"unknown dtype 'float61'; known: bfloat16, float32"):
        load_model(tmp_path, "float61")
    with pytest.raises(ValueError, match="with nothing"):
        load_model(tmp_path)
    with pytest.raises(AssetError, match=r"no file or folder .*missing"):
        load_model(tmp_path / "missing")
    (tmp_path / "pytorch_model.bin").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"with pytorch_model\.bin"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin; name its directory"):
        load_model(tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"config\.json.*must have `hidden_size`"):
        load_model(tmp_path)
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ValueError, match=r"pipe\.gguf must be a regular file, got a pipe"):
        load_model(tmp_path / "pipe.gguf")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"one \.gguf file.*a\.gguf, b\.gguf"):
        load_model(tmp_path)
