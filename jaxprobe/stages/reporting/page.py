"""Findings and the run's record -> one self-contained HTML page.

The page needs no network and says the same without JavaScript, which only adds sorting, search and
tooltips. Its style and script are the files beside this module, put inline; a content security
policy admits these two by hash and nothing else.
"""

import base64
import hashlib
import html
import importlib.resources
import itertools
from collections.abc import Mapping, Sequence

from jaxprobe import quiver
from jaxprobe.stages.reporting import figures, findings, per_dataset, tables, terminal

LEVEL_NAMES = {
    "scarcity": "Training rows",
    "imbalance": "Fraction of positives",
    "label_noise": "Fraction of flipped training labels",
}
RULE_TO = {"baselines_first": "baselines", "saes_first": "SAEs"}
# run.json's keys that have a place of their own; any other key is shown as it is.
PLACED = ("config", "versions", "device", "times", "sae_quality", "leaks", "seeds", "fingerprints")
TITLES = {
    "config": "Configuration",
    "versions": "Versions",
    "times": "Wall time per stage",
    "sae_quality": "Quality of the SAE",
    "seeds": "Seeds",
    "fingerprints": "Fingerprints",
}


def render(
    found: findings.Findings,
    run: Mapping[str, object],
    solver: str,
    links: Sequence[tuple[str, str]],
) -> str:
    """The whole page.

    Args:
        found: What the rows say.
        run: The content of `run.json`, {} where there is none.
        solver: How the probes were solved.
        links: Text and relative address of each download.
    """
    style, script = _resource("style.css"), _resource("script.js")
    sections = [
        ("verdict", "Verdict", _verdict(found)),
        *((regime, tables.regime_name(regime), _regime(found, regime)) for regime in found.regimes),
        ("leaks", "Leaks", _leaks(run)),
        ("flagged", "Flagged fits", _flagged(found)),
        ("run", "What was run", _run(found, run, solver)),
        ("method", "How to read this", _method(found, solver)),
        ("downloads", "Downloads", _downloads(links)),
    ]
    sections = [section for section in sections if section[2]]
    nav = "".join(f'<li><a href="#{name}">{_escape(title)}</a></li>' for name, title, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-head"><h2 id="{name}-head">{_escape(title)}</h2>'
        f"{content}</section>"
        for name, title, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_escape(_policy(style, script))}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{_escape(f'jaxprobe: {found.model} at {found.site}')}</title>"
        f"<style>{style}</style></head><body>"
        '<a class="skip" href="#verdict">Skip to the verdict</a>'
        f'{_header(found)}<nav aria-label="Sections"><ol>{nav}</ol></nav><main>{body}</main>'
        f"<footer><p>Made by jaxprobe from {found.num_rows:,} evaluated probes.</p></footer>"
        f"<script>{script}</script></body></html>\n"
    )


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _header(found: findings.Findings) -> str:
    saes = ", ".join(found.saes) or "no SAE"
    return (
        '<header><p class="kicker">jaxprobe report</p>'
        "<h1>Does a sparse autoencoder help to detect concepts?</h1>"
        '<p class="lede">Each dataset is a concept. Probes that read a model\'s activations are compared'
        " with probes that read a few latents of a sparse autoencoder (SAE), on the same rows.</p>"
        '<dl class="facts">'
        f"<div><dt>Model</dt><dd>{_escape(found.model)}</dd></div>"
        f"<div><dt>Site</dt><dd>{_escape(found.site)}</dd></div>"
        f"<div><dt>SAE</dt><dd>{_escape(saes)}</dd></div></dl></header>"
    )


# --- the verdict


def _verdict(found: findings.Findings) -> str:
    cards = "".join(_card(part) for regime in found.regimes for part in found.of_regime(regime))
    effects = [effect for part in found.parts for effect in _all_effects(part)]
    figure = "".join(_effect_figure(found, protocol, effects) for protocol in found.protocols)
    notes = "".join(f'<p class="note">{_escape(note)}</p>' for note in found.notes)
    return (
        f'<div class="cards">{cards}</div>{notes}<div class="figures">{figure}</div>'
        f"{tables.quiver_table(found)}"
    )


def _all_effects(part: findings.Part) -> list[quiver.Effect]:
    return [*part.effects.values(), part.alone_effect]


def _effect_figure(found: findings.Findings, protocol: str, scaled: Sequence[quiver.Effect]) -> str:
    """One protocol's effects; `scaled` are all that share the axis."""
    bars = []
    for part in found.parts:
        if part.protocol == protocol and part.alone_effect.num_datasets:
            labels = [(f"ties to {RULE_TO[rule]}", "sae sae0") for rule in part.effects]
            labels.append(("SAE alone", "alone"))
            for (label, tone), effect in zip(labels, _all_effects(part), strict=True):
                bars.append((f"{tables.regime_name(part.regime)}, {label}", tone, effect))
    if not bars:
        return ""
    title = f"{tables.PROTOCOL_NAMES[protocol]}: change of the mean test AUROC"
    drawn = figures.effect_figure(bars, f"effects-{protocol}", title, scaled)
    caption = (
        f"{title}, with 95 % intervals. Round: SAE probes join the baselines, under both tie rules."
        " Square: the best SAE probe replaces the best baseline."
    )
    return _figure(drawn, caption)


def _card(part: findings.Part) -> str:
    effect = part.effects["baselines_first"]
    tone = {1: "up", -1: "down", 0: "even"}[quiver.direction(effect)]
    span = f"95 % interval {tables.interval(effect)}" if effect.num_datasets > 1 else "no interval"
    label = f"{tables.regime_name(part.regime)}, {part.protocol} split"
    return (
        f'<article class="card {tone}"><h3>{_escape(label)}</h3>'
        f'<p class="big">{quiver.signed(effect.mean)} <span>AUROC when SAE probes join</span></p>'
        f'<p class="span">{span}</p><p class="sentence">{_escape(quiver.verdict(effect))}</p>'
        f"<p>{_escape(terminal.tie_sentence(part))}</p>"
        f"<p>{_escape(terminal.alone_verdict(part.alone_effect))}</p></article>"
    )


# --- one regime


def _regime(found: findings.Findings, regime: str) -> str:
    parts = found.of_regime(regime)
    # The same figure of both protocols stands side by side.
    rows = itertools.zip_longest(*(_part_figures(part, parts) for part in parts), fillvalue="")
    drawn = "".join(figure for row in rows for figure in row)
    table_id = f"{regime}-datasets"
    return (
        f'<div class="figures">{drawn}</div><h3>Dataset by dataset</h3>'
        f"{_search(table_id)}{tables.dataset_table(regime, parts, table_id)}"
        '<p class="small">Baseline: the method with the best valid AUROC. SAE probe: the number of'
        " latents k (and SAE) with the best valid AUROC, the smaller k among equals.</p>"
        f"{_control_section(regime, parts)}"
    )


def _part_figures(part: findings.Part, beside: Sequence[findings.Part]) -> list[str]:
    """A part's figures; the parts that stand beside it share its axes."""
    name, tag = tables.PROTOCOL_NAMES[part.protocol], f"{part.regime}-{part.protocol}"
    drawn = []
    if part.level_effects:
        title = f"{name}: change when SAE probes join, by level"
        axis = LEVEL_NAMES.get(part.regime, "Level")
        figure = figures.level_figure(part.level_effects, f"{tag}-levels", title, axis)
        drawn.append(_figure(figure, f"{title}. Ties to the baselines; band: 95 % interval."))
    if part.curve is not None:
        title = f"{name}: AUROC by number of latents"
        figure = figures.curve_figure(part.curve, f"{tag}-curve", title)
        caption = f"{title}. Mean over datasets, band: 95 % interval; thin lines: single datasets."
        drawn.append(_figure(figure, caption, _legend(part.curve)))
    if part.lines:
        scaled = [line for other in beside for line in other.lines]
        title = f"{name}: best SAE probe against best baseline"
        figure = figures.scatter_figure(part.lines, f"{tag}-scatter", title, scaled)
        drawn.append(_figure(figure, f"{title}. One dot per dataset.", tone="scatter"))
    return drawn


def _control_section(regime: str, parts: Sequence[findings.Part]) -> str:
    table = tables.control_table(regime, parts)
    return f"<h3>Controls</h3>{table}" if table else ""


def _legend(curve: per_dataset.Curve) -> str:
    trained = [name for name in curve.auroc_GK if name != quiver.RANDOM_SAE]
    entries = [("baseline", "best baseline")]
    entries += [(f"mean sae sae{i % 4}", f"SAE {name}") for i, name in enumerate(trained)]
    if quiver.RANDOM_SAE in curve.auroc_GK:
        entries.append(("mean random", "random SAE (control)"))
    items = "".join(
        f'<li><svg viewBox="0 0 30 10" aria-hidden="true"><path class="{tone}" d="M1 5H29"/></svg>'
        f"{_escape(name)}</li>"
        for tone, name in entries
    )
    return f'<ul class="legend">{items}</ul>'


def _figure(drawn: str, caption: str, before: str = "", tone: str = "") -> str:
    return f'<figure class="{tone}">{before}{drawn}<figcaption>{_escape(caption)}</figcaption></figure>'


def _search(table_id: str) -> str:
    # Hidden until the script, which makes it work, shows it.
    return (
        f'<div class="search" hidden data-table="{table_id}"><label for="{table_id}-search">Find a'
        f' dataset</label><input id="{table_id}-search" type="search" autocomplete="off"'
        ' spellcheck="false"><span role="status" aria-live="polite"></span></div>'
    )


# --- the rest


def _leaks(run: Mapping[str, object]) -> str:
    leaks = run.get("leaks")
    if not isinstance(leaks, Mapping) or not leaks:
        return ""
    return (
        "<p>Some datasets repeat prompts. Under the paper's split a test prompt may stand among the"
        " training rows; the dedup split keeps all rows of one prompt on one side.</p>"
        f"{_search('leak-table')}{tables.leak_table(leaks)}"
    )


def _flagged(found: findings.Findings) -> str:
    sentence = f"<p>{_escape(terminal.flagged_sentence(found))}</p>"
    if not found.flagged:
        return sentence
    more = len(found.flagged) - tables.MAX_FLAGGED
    tail = f'<p class="small">{more:,} more are in results.parquet.</p>' if more > 0 else ""
    return f"{sentence}{tables.flagged_table(found.flagged)}{tail}"


def _run(found: findings.Findings, run: Mapping[str, object], solver: str) -> str:
    device = run.get("device")
    summary = {
        "model": found.model,
        "site": found.site,
        "SAE": ", ".join(found.saes) or "none",
        "solver": solver,
        "device": device if device is not None else "not recorded",
        "probes": f"{found.num_rows:,}",
    }
    shown = [tables.key_value_table("Summary", summary)]
    for key in ("sae_quality", "times", "versions", "seeds", "fingerprints", "config"):
        if value := run.get(key):
            shown.append(_record(TITLES[key], key, value))
    other = {key: value for key, value in run.items() if key not in (*PLACED, "solver")}
    if other:
        shown.append(_record("Other records", "other", other))
    return f'<div class="records">{"".join(shown)}</div>'


def _record(title: str, key: str, value: object) -> str:
    mapping = value if isinstance(value, Mapping) else {key: value}
    if key == "times":
        mapping = {
            stage: f"{x:,.1f} s" if isinstance(x, int | float) else x
            for stage, x in mapping.items()
        }
    return tables.key_value_table(title, mapping)


def _method(found: findings.Findings, solver: str) -> str:
    arrows = list(dict.fromkeys(name for part in found.parts for name in part.arrow_names))
    points = [
        (
            "AUROC is the chance that a positive example outscores a negative one: 0.5 is guessing, 1 is"
            " perfect. Every choice (C, k, method) is made by valid AUROC; test rows choose nothing."
        ),
        (
            "Quiver of arrows: on each dataset the probe with the best valid AUROC is shot and its test"
            " AUROC counts. The baselines alone are compared with the baselines plus the SAE arrows"
            f" ({', '.join(arrows) or 'none'})."
        ),
        "Valid AUROC is often exactly 1, so ties decide much: both tie rules are shown.",
        (
            "Intervals are paired bootstraps over datasets (10,000 resamples, the levels of a dataset kept"
            " together); p-values are sign-flip tests with Holm's correction over the regimes of a split."
            " A difference is claimed only where the interval leaves out zero and the test agrees."
        ),
        (
            "The paper split follows the published protocol row for row. The dedup split keeps all copies"
            " of a prompt on one side and drops prompts that stand under both labels."
        ),
        (
            "Controls: probes on shuffled labels should score about 0.5; a random SAE of the same shape"
            " and L0, and random latents, show what the trained SAE adds."
        ),
        f"Solver: {solver}.",
    ]
    names = [line.dataset for part in found.parts for line in part.lines]
    if any(name.startswith(("161_", "162_", "163_")) for name in names):
        points.append(
            "Datasets 161 to 163 separate news from code because of a formatting slip in the source,"
            " as its authors say; they are kept."
        )
    return f"<ul>{''.join(f'<li>{_escape(point)}</li>' for point in points)}</ul>"


def _downloads(links: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f'<li><a href="{_escape(href)}" download>{_escape(name)}</a></li>' for name, href in links
    )
    return f"<ul>{items}</ul>" if items else ""


def _resource(name: str) -> str:
    folder = importlib.resources.files("jaxprobe.stages.reporting")
    return folder.joinpath(name).read_text(encoding="utf-8")


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _escape(words: object) -> str:
    return html.escape(str(words), quote=True)
