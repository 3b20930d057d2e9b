"""Findings -> the report's blocks, in the order in which they are read."""

import itertools
from collections.abc import Sequence

from jaxprobe.experiments.probing import leaks as leak_report
from jaxprobe.experiments.probing.report import (
    data_blocks,
    files,
    inputs,
    matrix_blocks,
    record_blocks,
    regime_blocks,
    verdict_blocks,
    words,
)
from jaxprobe.experiments.probing.report.findings import Findings
from jaxprobe.rendering import Block, Download, Prose, Report, Section

MAX_DETAILED = 4  # settings with sections of their own
QUESTION = "Does a sparse autoencoder help to detect concepts?"
LEDE = (
    "Each dataset is a concept. Probes that read a model's activations are compared with probes that read a"
    " few latents of a sparse autoencoder (SAE), on the same rows."
)


def lay_out(found: Sequence[Findings]) -> Report:
    """The whole report.

    Args:
        found: Findings of each setting; the first setting's answer comes first.
    """
    first = found[0]
    sections: list[Section | None] = [_verdict(found)]
    if len(found) > 1:
        sections.append(matrix_blocks.section(found))
        shown = zip(found, matrix_blocks.places(found), strict=True)
        for i, (one, place) in enumerate(itertools.islice(shown, MAX_DETAILED)):
            sections += _details(one, f"setting{i}-", place)
    else:
        sections += _details(first)
    sections += [
        data_blocks.flagged_section(found),
        data_blocks.leak_section(found),
        record_blocks.run_section(found),
        record_blocks.method_section(first),
        record_blocks.citation_section(),
        _downloads(found),
    ]
    probes = sum(one.num_rows for one in found)
    return Report(
        title=f"jaxprobe: {first.setting}",
        kicker="jaxprobe report",
        question=QUESTION,
        lede=LEDE,
        facts=_facts(found),
        sections=[section for section in sections if section is not None],
        footer=f"Made by jaxprobe from {words.count(probes, 'evaluated probe')}.",
    )


def _verdict(found: Sequence[Findings]) -> Section:
    """The answers of a single setting; for several, counts of their answers and the first in detail."""
    first, title = found[0], "Verdict"
    blocks: list[Block] = [*verdict_blocks.answers(first), *verdict_blocks.evidence(first)]
    if len(found) == 1:
        return Section(name="verdict", title=title, blocks=blocks)
    said = matrix_blocks.headline(found)
    warnings = [w for one in found[1:] for w in verdict_blocks.warnings(one)]
    if len(found) > MAX_DETAILED:
        left = (
            f"The page shows {words.count(MAX_DETAILED, 'place')} in detail;"
            " set `site` in the report's config to see another one. The files hold all."
        )
        said.append(Prose(text=left, tone="small"))
    inside = Section(name="verdict-first", title=f"In detail: {first.setting}", blocks=blocks)
    where = Prose(text=f"In detail: {first.setting}", only="terminal")
    return Section(name="verdict", title=title, blocks=[*said, *warnings, where, inside])


def _details(found: Findings, prefix: str = "", place: str = "") -> list[Section | None]:
    leaks = {
        name: float(rate)
        for name, facts in inputs.leak_records(found.records).items()
        if isinstance(rate := facts.get(leak_report.RATE), int | float)
    }
    return [
        *(regime_blocks.section(found, regime, leaks, prefix, place) for regime in found.regimes),
        data_blocks.latent_section(found, prefix, place),
    ]


def _facts(found: Sequence[Findings]) -> dict[str, str]:
    saes = list(dict.fromkeys(sae for one in found for sae in one.saes))
    models = list(dict.fromkeys(one.model for one in found))
    sites = list(dict.fromkeys(one.site for one in found))
    datasets = {name for one in found for name in one.datasets}
    dates = [record.date for one in found for record in one.records if record.date]
    facts = {
        "Model" if len(models) == 1 else "Models": words.some(models, 3),
        "Site" if len(sites) == 1 else "Sites": words.some(sites, 3),
        "SAE" if len(saes) < 2 else "SAEs": words.some(saes, 3),
        "Datasets": f"{len(datasets):,}",
        "Probes": f"{sum(one.num_rows for one in found):,}",
        "Solver": words.some(list(dict.fromkeys(one.solver for one in found))),
    }
    if dates:
        facts["Date"] = max(dates)
    if any(one.published for one in found):
        facts["Source"] = "the paper's published result files"
    return facts


def _downloads(found: Sequence[Findings]) -> Section:
    carried = [Download(name=name, table=table) for name, table in files.all_files(found).items()]
    # The rows of several runs are in their own directories.
    names = [*([] if found[0].setting.run else ["results.parquet"]), *files.beside(found[0])]
    beside = [Download(name=name) for name in names]
    blocks = [
        Section(name="downloads-inside", title="Inside this page", blocks=carried),
        Section(
            name="downloads-beside",
            title="In the work directory that holds this page",
            blocks=beside,
        ),
    ]
    return Section(name="downloads", title="Downloads", blocks=blocks, only="page")
