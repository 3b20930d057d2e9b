"""Where activations are read: our names of sites, and what other libraries' names mean.

A name means the tensor that its library's hook of that name gives. A name without a site here is refused with an
explanation of what it means. Names are always compared whole, never by prefix. TransformerLens stands for the
`HookedTransformer` of its version 3, without weight processing, which SAELens loads. Hugging Face's names are names
of modules in transformers 5: a module's name means its output, `NAME.input` its input.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxprobe import checks

STREAMS = (
    *("embed", "resid_pre", "resid_mid", "resid_post"),
    *("attn_in_unscaled", "attn_z", "attn_module_out", "attn_out"),
    *("mlp_in_unscaled", "mlp_in", "mlp_module_out", "mlp_out"),
)
# Outputs of a block's modules: the same tensor as what is added to the stream, unless a norm follows.
MODULE_OUT = {"attn_module_out": "attn_out", "mlp_module_out": "mlp_out"}
_NUMBER = r"(?P<block>0|[1-9][0-9]{0,5})"


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Site:
    """A place in the model where activations are read, printed `blocks.12.resid_post`.

    `embed` is the embedding as the first block reads it: in Gemma after its scaling. In block L,
    `resid_pre`, `resid_mid` and `resid_post` are the residual stream before attention, before the MLP
    and after both. `attn_in_unscaled` and `mlp_in_unscaled` are the outputs of the norms before attention
    and the MLP without their learned weight (and bias); `mlp_in` is the MLP's input. `attn_z` is the
    concatenated heads before the output projection. `attn_module_out` and `mlp_module_out` are the
    outputs of attention and the MLP; `attn_out` and `mlp_out` are what is added to the stream, which in
    Gemma 2 and 3 is after their post norms and in other families the same.

    Attributes:
        block: The block's number, or -1 for `embed`, which comes before all blocks.
        stream: One of `STREAMS`.
    """

    block: int
    stream: str

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Reads `embed`, `blocks.L.STREAM`, or another library's name of the same site.

        TransformerLens's (`blocks.12.hook_resid_post`, `blocks.3.attn.hook_z`, `hook_embed`) and
        Hugging Face's (`model.layers.12`, `model.layers.12.output`, `gpt_neox.layers.2.mlp`,
        `model.layers.3.self_attn.o_proj.input`) are understood; see `site_named`.

        Raises:
            ValueError: The text is not a site, means different sites in different libraries or families,
                or names a tensor that no stream stands for.
        """
        return site_named(text, "any")

    def stored(self, post_norms: bool) -> "Site":
        """The site under whose name a model's activations are stored.

        Args:
            post_norms: Whether its blocks normalise the outputs of attention and the MLP.
        """
        if post_norms or self.stream not in MODULE_OUT:
            return self
        return Site(block=self.block, stream=MODULE_OUT[self.stream])

    def __str__(self) -> str:
        """The text that `parse` reads."""
        return "embed" if self.stream == "embed" else f"blocks.{self.block}.{self.stream}"


def site_named(text: str, library: str, port: str = "output") -> Site:
    """The site that a library's name means.

    Args:
        text: For example `blocks.8.hook_resid_pre`, `model.layers.12.output`, `layers.3.mlp`.
        library: One of `LIBRARIES`; `any` accepts our own names, TransformerLens's and Hugging Face's,
            where no two of them disagree.
        port: Whether a module's bare name means its `output` or its `input`.

    Raises:
        ValueError: The name is not the library's, or no stream stands for its tensor (the message
            says which tensor that is); or the library or port is unknown.
    """
    checks.check_choice("library", library, LIBRARIES)
    checks.check_choice("port", port, ("output", "input"))
    for read in LIBRARIES[library]:
        found = read(text, port)
        if isinstance(found, Site):
            return found
        if found:
            raise ValueError(f"{text!r} {found}; {_WANTED}")
    raise ValueError(f"{_WANTED}, or another library's name of one, got {text!r}")


def transformer_lens_name(site: Site) -> str:
    """The hook of TransformerLens that gives a site.

    Raises:
        ValueError: No hook gives it in every family.
    """
    if site.stream == "embed":
        return "hook_embed"
    for hook, stream in _HOOKS.items():
        if stream == site.stream:
            return f"blocks.{site.block}.{hook}"
    raise ValueError(
        f"no hook of TransformerLens's HookedTransformer gives `{site}` in every family, so any hook's"
        " name could mean another tensor; save it in the layout jaxprobe, or leave the site out"
    )


_WANTED = (
    f"a site is `embed` or `blocks.L.STREAM` with a number L and one of {', '.join(STREAMS[1:])}"
)
_TWO_MEANINGS = "has two meanings ({}), name the one wanted"

# A reader returns a name's site, or why it is refused, or None for a name that is not its library's.
_Read = Callable[[str, str], Site | str | None]


def _at(block: str, meaning: str | None) -> Site | str | None:
    """The site for a table's entry, which is a stream or the reason why there is none."""
    return Site(block=int(block), stream=meaning) if meaning in STREAMS else meaning


def _own(text: str, _port: str) -> Site | None:
    if text == "embed":
        return Site(block=-1, stream="embed")
    found = re.fullmatch(rf"blocks\.{_NUMBER}\.(?P<stream>[a-z_]+)", text)
    if found and found["stream"] in STREAMS[1:]:
        return Site(block=int(found["block"]), stream=found["stream"])
    return None


# TransformerLens: hooks of a block.
_HOOKS = {
    **{f"hook_{name}": name for name in ("resid_pre", "resid_mid", "resid_post")},
    **{"hook_attn_out": "attn_out", "hook_mlp_out": "mlp_out", "attn.hook_z": "attn_z"},
    **{"ln1.hook_normalized": "attn_in_unscaled", "ln2.hook_normalized": "mlp_in_unscaled"},
}
_NO_STREAM = "is {}, for which there is no stream"
_BRIDGE_ONLY = (
    "is a hook only of TransformerLens's TransformerBridge, and names here are HookedTransformer's;"
    " name the stream instead"
)
_REFUSED_HOOKS = {
    r"hook_(attn_in|[qkv]_input)": _NO_STREAM.format("a copy of `resid_pre` for every head"),
    r"attn\.hook_(rot_)?[qkv]": _NO_STREAM.format("queries, keys or values"),
    r"attn\.hook_(pattern|attn_scores)": _NO_STREAM.format("attention between pairs of tokens"),
    r"attn\.hook_result": _NO_STREAM.format("each head's own part of attention's output"),
    r"attn\.hook_attn_input": _NO_STREAM.format("what attention reads, its norm's weight included"),
    r"mlp\.(hook_)?(pre|pre_linear|post|mid|gate)(_linear)?": _NO_STREAM.format(
        "the MLP's neurons"
    ),
    r"mlp\.hook_expert_.*|mlp\.experts\..*": _NO_STREAM.format("a router's choice or an expert's"),
    r"ln[12](_post)?\.hook_scale": _NO_STREAM.format("a norm's divisor, one number per token"),
    r"ln[12]_post\.hook_normalized": _NO_STREAM.format("a post norm's output without its weight"),
    r"((attn|mlp|ln[12](_post)?)\.)?hook_(in|out)": _BRIDGE_ONLY,
}
_REFUSED_TEXTS = {
    r"ln_final\..*|(model\.|gpt_neox\.|transformer\.)?(norm|final_layer_norm|ln_f)(\..*)?": (
        _NO_STREAM.format("at the final norm after the last block")
    ),
    r"(transformer\.)?(wte|wpe)(\..*)?|hook_pos_embed": _NO_STREAM.format(
        "the embedding of tokens or of positions alone (`embed` is what the first block reads)"
    ),
}
_MLP_IN = "hook_mlp_in"


def _transformer_lens(mlp_in: str) -> _Read:
    """A reader of TransformerLens's names; `mlp_in` is the stream that `hook_mlp_in` means."""

    def read(text: str, _port: str) -> Site | str | None:
        if text == "hook_embed":
            return Site(block=-1, stream="embed")
        found = re.fullmatch(rf"blocks\.{_NUMBER}\.(?P<hook>.+)", text)
        if not found:
            return _first(_REFUSED_TEXTS, text)
        hook = found["hook"]
        meaning = mlp_in if hook == _MLP_IN else _HOOKS.get(hook) or _first(_REFUSED_HOOKS, hook)
        return _at(found["block"], meaning)

    return read


def _first(table: Mapping[str, str], text: str) -> str | None:
    """The entry of the first pattern that fits the whole text."""
    return next((entry for pattern, entry in table.items() if re.fullmatch(pattern, text)), None)


class _Module(NamedTuple):
    """What a hook on a module sees: streams, or the reason why there is none."""

    output: str
    input: str


# Hugging Face: modules of a block. Families use `post_attention_layernorm` for different norms.
_ATTENTION_READS = _NO_STREAM.format(
    "what attention reads, its norm's weight included (`attn_in_unscaled` is without)"
)
_NEURONS = _NO_STREAM.format("the MLP's neurons")
_HEADS = _NO_STREAM.format("queries, keys or values")
_MODULES = {
    "": _Module("resid_post", "resid_pre"),
    "input_layernorm": _Module(_ATTENTION_READS, "resid_pre"),
    "self_attn": _Module("attn_module_out", _ATTENTION_READS),
    "self_attn.o_proj": _Module("attn_module_out", "attn_z"),
    "attention.dense": _Module("attn_module_out", "attn_z"),
    **{
        f"{attention}.{name}": _Module(_HEADS, _ATTENTION_READS)
        for attention, name in (
            *(("self_attn", f"{letter}_proj") for letter in "qkv"),
            ("attention", "query_key_value"),
        )
    },
    **{f"self_attn.{letter}_norm": _Module(_HEADS, _HEADS) for letter in "qk"},
    "post_attention_layernorm": _Module(
        _TWO_MEANINGS.format("attn_out in Gemma 2 and 3, mlp_in in other families"),
        _TWO_MEANINGS.format(
            "attn_module_out in Gemma 2 and 3, in other families resid_mid, or resid_pre where"
            " attention and the MLP are parallel"
        ),
    ),
    "pre_feedforward_layernorm": _Module("mlp_in", "resid_mid"),
    "mlp": _Module("mlp_module_out", "mlp_in"),
    **{f"mlp.{name}": _Module(_NEURONS, "mlp_in") for name in ("gate_proj", "up_proj")},
    "mlp.dense_h_to_4h": _Module(_NEURONS, "mlp_in"),
    **{name: _Module(_NEURONS, _NEURONS) for name in ("mlp.act_fn", "mlp.act")},
    "mlp.down_proj": _Module("mlp_module_out", _NEURONS),
    "mlp.dense_4h_to_h": _Module("mlp_module_out", _NEURONS),
    "post_feedforward_layernorm": _Module("mlp_out", "mlp_module_out"),
    "post_attention_dropout": _Module("attn_module_out", "attn_module_out"),
    "post_mlp_dropout": _Module("mlp_module_out", "mlp_module_out"),
}
_MODULES |= {name: _MODULES["self_attn"] for name in ("attention", "attn")}
_ROOTS = r"(?:(?:model|language_model|gpt_neox)\.)*"
_BLOCKS = rf"(?:{_ROOTS}layers|(?:transformer\.)?h)"


def _module(text: str, port: str) -> Site | str | None:
    """Hugging Face's names of modules."""
    name = re.sub(r"\.(input|output)$", "", text)
    port = text[len(name) + 1 :] or port
    if re.fullmatch(rf"{_ROOTS}(?:embed_tokens|embed_in)", name):
        if port == "input":
            return _NO_STREAM.format("the tokens' ids")
        return Site(block=-1, stream="embed")
    found = re.fullmatch(rf"{_BLOCKS}\.{_NUMBER}(?:\.(?P<module>.+))?", name)
    if not found:
        return _first(_REFUSED_TEXTS, name)
    module = _MODULES.get(found["module"] or "")
    return _at(found["block"], getattr(module, port)) if module else None


def _sparsify(text: str, port: str) -> Site | str | None:
    """Hookpoints of sparsify: modules of the base model; SAELens writes `layers_3` too."""
    return _module(re.sub(r"^(layers|h)_(?=[0-9])", r"\1.", text), port)


# dictionary_learning's `submodule_name`: its demos' words for a block's submodules, which it hooks as
# modules, and the port that a word implies.
_SUBMODULES = {
    **{"resid": ("", None), **dict.fromkeys(("resid_out", "resid_post"), ("", "output"))},
    "resid_pre": ("", "input"),
    **dict.fromkeys(("attn", "att", "attention", "self_attn"), ("self_attn", None)),
    **dict.fromkeys(("attn_out", "attention_out", "att_out"), ("self_attn", "output")),
    **{"mlp": ("mlp", None), "mlp_in": ("mlp", "input"), "mlp_out": ("mlp", "output")},
}


def _submodule(text: str, port: str) -> Site | str | None:
    """dictionary_learning's names: a word and `_layer_L`."""
    found = re.fullmatch(rf"(?P<word>[a-z_]+?)_layer_?{_NUMBER}", text)
    if not found:
        return None
    if found["word"] == "resid_mid":
        return _at(found["block"], "resid_mid")
    if found["word"] not in _SUBMODULES:
        return None
    module, said = _SUBMODULES[found["word"]]
    if said == "output" and port == "input":
        return f"says {said}, but the config says `io` = in; correct one of them"
    return _at(found["block"], getattr(_MODULES[module], said or port))


_AMBIGUOUS_MLP_IN = _TWO_MEANINGS.format(
    "resid_mid in TransformerLens, mlp_in in SAELens's transcoders"
)
LIBRARIES: Mapping[str, tuple[_Read, ...]] = {
    "any": (_own, _transformer_lens(_AMBIGUOUS_MLP_IN), _module),
    "transformer_lens": (_transformer_lens("resid_mid"),),
    "llama_scope": (_transformer_lens("resid_mid"),),  # a fork of TransformerLens
    # SAELens hooks either TransformerLens's model or, by their modules' names, Hugging Face's.
    "sae_lens": (_transformer_lens("resid_mid"), _module),
    # SAELens's registry uses this name for the input of Gemma Scope 2's transcoders.
    "sae_lens_transcoder": (_transformer_lens("mlp_in"), _module),
    "hugging_face": (_module,),
    "sparsify": (_sparsify,),
    "dictionary_learning": (_submodule, _module, _transformer_lens("resid_mid")),
}
