"""Sections about the data: chosen latents and their texts, leaks, fits that did not converge."""

from collections.abc import Mapping, Sequence

from jaxprobe.experiments.probing import leaks as leak_report
from jaxprobe.experiments.probing.report import inputs, words
from jaxprobe.experiments.probing.report.findings import Findings
from jaxprobe.rendering import Block, Column, Prose, Section, Table, forms
from jaxprobe.rendering.forms import Form

MAX_FLAGGED = 100
MAX_TEXTS, MAX_TEXT = 5, 160  # per latent; characters of a text


def latent_section(found: Findings, prefix: str = "", place: str = "") -> Section | None:
    """Which latents the probes chose, and what they fire on; None where that was not kept.

    Args:
        found: Findings of one setting.
        prefix: Prefix of the section's name.
        place: The setting's short name among others.
    """
    if not found.latents:
        return None
    rows = [
        [
            one.dataset,
            one.sae,
            one.latent,
            one.weight,
            " | ".join(words.shortened(text, MAX_TEXT) for text in one.texts[:MAX_TEXTS]),
        ]
        for one in found.latents
    ]
    columns = [
        Column(title="Dataset"),
        Column(title="SAE"),
        Column(title="Latent", form=Form(str)),
        Column(title="Weight", form=forms.decimals(3, "+")),
        Column(title="Strongest texts"),
    ]
    said = (
        "The latents that the probes read, with their weights: a positive weight is evidence for label 1."
        " The texts are those of the dataset on which the latent is largest, the strongest first."
    )
    name = f"{prefix}latents"
    caption = "Chosen latents and the texts on which they fire most"
    table = Table(
        caption=caption,
        columns=columns,
        rows=rows,
        name=f"{name}-table",
        search="dataset",
        sortable=True,
        tone="wrap",
    )
    title = "Which latents did the probe choose, and what do they fire on?"
    title = f"{place}: {title}" if place else title
    return Section(name=name, title=title, blocks=[Prose(text=said), table], only="page")


# --- leaks and flagged fits


def leak_section(found: Sequence[Findings]) -> Section | None:
    """Leak rates and conflicting labels per dataset, if the runs measured them."""
    leaks = inputs.leak_records([record for one in found for record in one.records])
    named = {name for one in found for name in one.datasets}
    kept = {name: facts for name, facts in leaks.items() if name in named} or leaks
    blocks: list[Block] = []
    if kept:
        said = " ".join(leak_report.sentences(kept))
        end = (
            "The dedup split keeps one row of each prompt; further copies, and prompts under both labels,"
            " are dropped."
        )
        blocks = [Prose(text=f"{said} {end}"), _leak_table(kept)]
    elif any(one.published for one in found):
        said = (
            "Leak rates need the datasets: to show them here, run the same command with"
            " --source=pypi://sae-probes."
        )
        blocks = [Prose(text=said)]
    return Section(name="leaks", title="Leaks", blocks=blocks, only="page") if blocks else None


def _leak_table(leaks: Mapping[str, inputs.Facts]) -> Table:
    measures = list(dict.fromkeys(str(key) for facts in leaks.values() for key in facts))
    form_of = {
        name: forms.PERCENT if "rate" in name or "fraction" in name else forms.SHORT
        for name in measures
    }
    return Table(
        caption="Prompts that training and test rows share",
        columns=[
            Column(title="Dataset"),
            *(Column(title=name.capitalize(), form=form_of[name]) for name in measures),
        ],
        rows=[[name, *(facts.get(key) for key in measures)] for name, facts in leaks.items()],
        name="leak-table",
        search="dataset",
        sortable=True,
    )


def flagged_section(found: Sequence[Findings]) -> Section:
    """Fits that did not converge, counted and named, setting by setting."""
    if len(found) > 1 and all(one.flagged == () for one in found):
        fits = sum(one.num_rows for one in found)
        blocks: list[Block] = [Prose(text=f"All {fits:,} fits at {len(found)} places converged.")]
        return Section(name="flagged", title="Flagged fits", blocks=blocks)
    blocks = []
    for one in found:
        where = f"{one.setting}: " if len(found) > 1 else ""
        blocks.append(Prose(text=where + words.flagged_sentence(one)))
        if one.flagged:
            blocks.append(_flagged_table(one))
            more = len(one.flagged) - MAX_FLAGGED
            tail = f"{more:,} more are in results.parquet."
            blocks += [Prose(text=tail, tone="small", only="page")] if more > 0 else []
    return Section(name="flagged", title="Flagged fits", blocks=blocks)


def _flagged_table(found: Findings) -> Table:
    rows = [
        [
            row.dataset,
            words.regime_name(row.regime),
            row.level,
            row.protocol,
            row.features,
            row.method,
            row.num_latents,
            row.best_c,
            row.test_auroc,
        ]
        for row in (found.flagged or ())[:MAX_FLAGGED]
    ]
    columns = [
        Column(title="Dataset"),
        Column(title="Regime"),
        Column(title="Level", form=forms.SHORT),
        Column(title="Split", form=forms.WORD),
        Column(title="Features"),
        Column(title="Method"),
        Column(title="k", form=forms.COUNT),
        Column(title="C", form=forms.SHORT),
        Column(title="Test AUROC", form=forms.AUROC),
    ]
    caption = "Fits that did not converge"
    return Table(caption=caption, columns=columns, rows=rows, tone="wrap", only="page")
