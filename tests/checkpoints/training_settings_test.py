"""What SAEs were trained on: applied as SAELens and TransformerLens mean it, or refused by name."""

import json
import logging

import pytest

torch = pytest.importorskip("torch", reason="the formats' own libraries need torch")

from jaxprobe import checkpoints, saes  # noqa: E402
from jaxprobe.base import Site  # noqa: E402
from jaxprobe.checkpoints import places, training_settings  # noqa: E402
from tests.checkpoints.parity_test import activations, assert_close, make_sae_lens  # noqa: E402

CENTRED = {"center_writing_weights": True}


@pytest.fixture(scope="module")
def sae_lens():
    return pytest.importorskip("sae_lens", reason="the reference is SAELens 6")


def save(sae, folder, **metadata):
    """Saves a SAELens SAE and puts entries into its metadata."""
    sae.save_model(folder)
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    config["metadata"] |= {"model_name": "pythia-70m", **metadata}
    path.write_text(json.dumps(config))
    return folder


def test_centred_writing_weights_are_folded_into_every_architecture(sae_lens, tmp_path):
    x_ND = activations()
    centred_ND = torch.tensor(x_ND - x_ND.mean(axis=1, keepdims=True))
    # The others have no arrays of their own; a layer norm removes the mean itself.
    kinds = [(name, "none") for name in ("jumprelu", "topk rescaled", "gated", "skip_transcoder")]
    for name, normalisation in (*kinds, ("standard", "layer_norm")):
        for applies in (True, False):
            sae = make_sae_lens(sae_lens, name, normalisation, applies)
            hook = {"hook_name": "blocks.3.hook_resid_mid"} if "transcoder" in name else {}
            folder = tmp_path / f"{name} {applies}"
            save(sae, folder, model_from_pretrained_kwargs=CENTRED, **hook)
            loaded = checkpoints.load_sae(folder)
            assert loaded.centred
            with torch.no_grad():
                z_NS, y_ND = sae.encode(centred_ND), sae(centred_ND)
            for given_ND in (x_ND, centred_ND.numpy()):
                ours_NS = saes.encode(loaded.sae, given_ND)
                assert_close(ours_NS, z_NS, "latents")
                if normalisation == "none":
                    assert_close(
                        saes.decode(loaded.sae, ours_NS, given_ND), y_ND, "reconstructions"
                    )


def test_centring_counts_where_a_layer_norm_has_not_done_it(sae_lens, tmp_path, caplog):
    def load(name, **metadata):
        folder = save(make_sae_lens(sae_lens, "standard"), tmp_path / name, **metadata)
        return checkpoints.load_sae(folder)

    kwargs = {"model_from_pretrained_kwargs": CENTRED}
    with caplog.at_level(logging.WARNING):
        assert not load("rms", model_name="google/gemma-2-2b", **kwargs).centred
        assert not load("z", hook_name="blocks.3.attn.hook_z", **kwargs).centred
        assert load("mlp", hook_name="blocks.3.hook_mlp_out", **kwargs).centred
        assert not load("none", model_from_pretrained_kwargs={}).centred
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert load("unknown", model_name="x", **kwargs).centred
    assert "its model's name 'x' does not tell" in caplog.text
    with pytest.raises(ValueError, match="constant_norm_rescale, which are not supported together"):
        sae = make_sae_lens(sae_lens, "standard", "constant_norm_rescale")
        checkpoints.load_sae(save(sae, tmp_path / "rescaled", **kwargs))
    with pytest.raises(ValueError, match="depends on the site"):
        load("no site", hook_name=None, **kwargs)


def test_what_the_registry_knows_of_old_files_counts_where_they_do_not_say(tmp_path):
    site = Site(block=8, stream="resid_pre")
    for source, metadata, wanted in (
        ("hf://jbloom/GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre", {}, True),
        ("hf://jbloom/GPT2-Small-SAEs-Reformatted/x", {"model_from_pretrained_kwargs": {}}, False),
        ("hf://elsewhere/GPT2-Small-SAEs-Reformatted/x", {}, False),
    ):
        place = places.Place(folder=tmp_path, file=None, source=source)
        said = {"model_name": "gpt2-small", **metadata}
        assert training_settings._is_centred(said, site, place, tmp_path) == wanted


def test_settings_that_change_activations_are_refused_by_name(sae_lens, tmp_path, caplog):
    sae = make_sae_lens(sae_lens, "standard")
    cases = (
        ({"fold_ln": True}, "model.layers.3.mlp.input", "`fold_ln`.*blocks.3.mlp_in_unscaled"),
        ({"fold_value_biases": True}, "blocks.3.attn.hook_z", "`fold_value_biases`.*value biases"),
        ({"refactor_factored_attn_matrices": 1}, "blocks.3.attn.hook_z", "another basis"),
        ({"rope_theta": 7}, "blocks.3.hook_resid_pre", "'rope_theta', whose effect"),
        ([1], "blocks.3.hook_resid_pre", "must be an object"),
    )
    for number, (kwargs, hook, message) in enumerate(cases):
        folder = save(
            sae, tmp_path / str(number), model_from_pretrained_kwargs=kwargs, hook_name=hook
        )
        with pytest.raises(ValueError, match=message):
            checkpoints.load_sae(folder)
    save(sae, tmp_path / "head", hook_head_index=3, hook_name="blocks.3.attn.hook_z")
    with pytest.raises(ValueError, match=r"`hook_head_index` of .*cfg\.json must be null, got 3"):
        checkpoints.load_sae(tmp_path / "head")
    harmless = {"fold_ln": True, "fold_value_biases": True, "center_unembed": True, "rope": None}
    harmless |= {"dtype": "bfloat16", "n_devices": 2, "revision": "main", "first_n_layers": 4}
    save(sae, tmp_path / "fine", model_from_pretrained_kwargs=harmless, seqpos_slice=[5, 99])
    assert not checkpoints.load_sae(tmp_path / "fine").centred
    assert not caplog.records
    other = {"checkpoint_value": 1000, "checkpoint_index": 0, "fold_value_biases": 0}
    save(sae, tmp_path / "step", model_from_pretrained_kwargs=other)
    with caplog.at_level(logging.WARNING):
        checkpoints.load_sae(tmp_path / "step")
    assert "checkpoint_value=1000" in caplog.text
    assert "checkpoint_index=0" in caplog.text


def test_sae_lens_says_whether_it_had_bos(sae_lens, tmp_path):
    sae = make_sae_lens(sae_lens, "standard")
    for value, wanted in ((True, "on"), (False, "off"), (None, "auto")):
        folder = save(sae, tmp_path / wanted, prepend_bos=value)
        assert checkpoints.load_sae(folder).bos == checkpoints.bos_setting(folder) == wanted
    with pytest.raises(ValueError, match=r"`prepend_bos` of .* must be true or false, got 'yes'"):
        checkpoints.load_sae(save(sae, tmp_path / "word", prepend_bos="yes"))
    # SAELens' other way to load a model: Qwen's tokenizer has no BOS of its own to put in front.
    bare = {"model_class_name": "AutoModelForCausalLM", "prepend_bos": True}
    for name, wanted in (("Qwen/Qwen3-0.6B", "off"), ("google/gemma-2-2b", "on")):
        folder = save(sae, tmp_path / name, model_name=name, **bare)
        assert checkpoints.load_sae(folder).bos == wanted
    # Before version 6 an absent one meant yes, and an SAE kept it beside its own settings.
    old = {"hook_point": "blocks.3.hook_resid_pre", "d_in": 24, "d_sae": 96}
    for more, wanted in (({}, "on"), ({"prepend_bos": False}, "off")):
        (tmp_path / "on" / "cfg.json").write_text(json.dumps(old | more))
        assert checkpoints.load_sae(tmp_path / "on").bos == wanted
    (tmp_path / "on" / "cfg.json").write_text(json.dumps(old | {"hook_point_head_index": 0}))
    with pytest.raises(ValueError, match="`hook_head_index`"):
        checkpoints.load_sae(tmp_path / "on")


def test_bos_survives_saving_in_every_layout_that_has_a_word_for_it(sae_lens, tmp_path):
    sae = make_sae_lens(sae_lens, "standard")
    for value, wanted in ((True, "on"), (False, "off"), (None, "auto")):
        loaded = checkpoints.load_sae(save(sae, tmp_path / wanted, prepend_bos=value))
        for layout in ("jaxprobe", "sae_lens"):
            folder = tmp_path / wanted / layout
            checkpoints.save_sae(folder, loaded, {"site": "blocks.3.resid_post"}, layout=layout)
            assert checkpoints.load_sae(folder).bos == checkpoints.bos_setting(folder) == wanted
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path / "off" / "sae_lens"))
    assert theirs.cfg.metadata.prepend_bos is False


def test_a_centred_sae_is_saved_as_what_it_has_become(sae_lens, tmp_path):
    sae = make_sae_lens(sae_lens, "gated")
    first = save(sae, tmp_path / "first", model_from_pretrained_kwargs=CENTRED)
    loaded = checkpoints.load_sae(first)
    checkpoints.save_sae(tmp_path / "second", loaded, {}, layout="sae_lens")
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path / "second"))
    x_ND = activations()
    with torch.no_grad():
        z_NS = theirs.encode(torch.tensor(x_ND))
        centred_ND = torch.tensor(x_ND - x_ND.mean(axis=1, keepdims=True))
        assert_close(z_NS.numpy(), sae.encode(centred_ND), "latents")


def test_other_libraries_say_it_beside_the_sae(tmp_path):
    place = lambda **options: places.Place(
        folder=tmp_path / "sae", file=None, source="s", options=places.Options(**options)
    )
    (tmp_path / "sae").mkdir()
    assert training_settings.of_language_model(place()) == "auto"
    for folder, said, wanted in (
        (tmp_path, {}, "on"),
        (tmp_path / "sae", {"prepend_bos": False}, "off"),
    ):
        (folder / "lm_config.json").write_text(json.dumps(said))
        assert training_settings.of_language_model(place()) == wanted
    of_buffer = training_settings.of_buffer
    assert of_buffer({"trainer": {}}) == "auto"
    assert of_buffer({"buffer": {"io": "out", "remove_bos": True}}) == "auto"
    assert of_buffer({"buffer": {"add_special_tokens": False}}) == "off"


def test_a_run_takes_one_setting():
    agreed = training_settings.agreed_bos
    assert agreed("auto", {}) == "auto"
    assert agreed("auto", {"a": "auto", "b": "on"}) == "on"
    assert agreed("auto", {"b": "off", "c": "off"}) == "off"
    with pytest.raises(
        ValueError, match=r"SAE a was trained .* with BOS and SAE b on prompts that do"
    ):
        agreed("auto", {"a": "on", "b": "off"})
    assert agreed("off", {"a": "on", "b": "off"}) == "off"


def test_what_a_run_overrides_or_assumes_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        training_settings.agreed_bos("on", {"a": "on", "b": "off", "c": "auto"})
        training_settings.agreed_bos("auto", {"a": "on", "c": "auto"})
    assert [record.getMessage().split(" ")[1] for record in caplog.records] == ["b", "c"]
