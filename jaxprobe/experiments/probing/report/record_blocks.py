"""The last sections: what was run, how to read it, how to cite it."""

import math
from collections.abc import Mapping, Sequence

from jaxprobe.experiments.probing.report import inputs, words
from jaxprobe.experiments.probing.report.findings import Findings
from jaxprobe.rendering import Block, Column, Grid, Points, Prose, Section, Table
from jaxprobe.rendering.forms import Form

CITATION = """@inproceedings{kantamneni2025sparse,
  title = {Are Sparse Autoencoders Useful? A Case Study in Sparse Probing},
  author = {Kantamneni, Subhash and Engels, Joshua and Rajamanoharan, Senthooran
            and Tegmark, Max and Nanda, Neel},
  booktitle = {International Conference on Machine Learning},
  year = {2025},
  eprint = {2502.16681},
  archivePrefix = {arXiv}
}"""
_FACT = Form(lambda x: f"{x:.4g}" if isinstance(x, float) else str(x), is_number=False)


def run_section(found: Sequence[Findings]) -> Section:
    """The records of each run: config, SAEs, versions, processor, times."""
    blocks: list[Block] = []
    seen: set[int] = set()
    for one in found:
        blocks.append(Grid(kind="records", blocks=[_summary(one)]))
        for record in one.records:
            if id(record) not in seen:
                seen.add(id(record))
                blocks.append(Grid(kind="records", blocks=_record_tables(record, one)))
    return Section(name="run", title="What was run", blocks=blocks, only="page")


def _summary(found: Findings) -> Table:
    flagged = "not recorded" if found.flagged is None else f"{len(found.flagged):,}"
    facts: dict[str, object] = {
        "model": found.model,
        "site": found.site,
        "SAE": words.some(found.saes, 8),
        "solver": found.solver,
        "datasets": len(found.datasets),
        "probes": f"{found.num_rows:,}",
        "not converged": flagged,
    }
    for name in ("date", "command", "commit", "device", "processor"):
        values = dict.fromkeys(getattr(record, name) for record in found.records)
        facts[name] = "; ".join(filter(None, values)) or "not recorded"
    return _facts(f"Summary: {found.setting}", facts)


def _record_tables(record: inputs.Record, found: Findings) -> list[Table]:
    where = f" ({found.setting.run})" if found.setting.run else ""
    times = {stage: f"{seconds:,.1f} s" for stage, seconds in record.times.items()}
    named: dict[str, inputs.Facts] = {
        "Quality of the SAE": record.sae_quality,
        "Wall time per stage": times,
        "Versions": record.versions,
        "Seeds": record.seeds,
        "Published files": record.published_facts,
        "Fingerprints": record.fingerprints,
        "Configuration": record.config,
        "Other records": record.other,
    }
    return [_facts(title + where, facts) for title, facts in named.items() if facts]


def _facts(caption: str, facts: inputs.Facts) -> Table:
    """A nested mapping as two columns, inner keys joined with dots."""
    columns = [Column(title="Name"), Column(title="Value", form=_FACT)]
    return Table(caption=caption, columns=columns, rows=flatten(facts))


def flatten(facts: Mapping, prefix: str = "") -> list[list[object]]:
    """Leaves of a nested mapping with dotted names; lists of plain values stay on one line."""
    leaves: list[list[object]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            leaves += flatten(value, f"{name}.")
        elif isinstance(value, list | tuple):
            leaves.append([name, ", ".join(map(str, value))])
        else:
            is_known = value is not None and not (isinstance(value, float) and math.isnan(value))
            leaves.append([name, value if is_known else str(value)])
    return leaves


# --- how to read and cite it


def method_section(found: Findings) -> Section:
    """How to read the page."""
    names = {
        field: list(dict.fromkeys(words.arrow_name(a) for p in found.parts for a in arrows(p)))
        for field, arrows in (
            ("saes", lambda part: part.choice.saes),
            ("baselines", lambda part: part.choice.baselines),
            ("extended", lambda part: part.choice.extended),
        )
    }
    points = [
        "AUROC is the chance that a positive example outscores a negative one: 0.5 is guessing, 1 is"
        " perfect. Every choice (C, k, method) is made by valid AUROC, never by test rows.",
        "Quiver of arrows: on each dataset the probe with the best valid AUROC is chosen and its test AUROC"
        f" counts. The baselines alone ({words.some(names['baselines'], 8)}) are compared with the"
        f" baselines plus the SAE arrows ({words.some(names['saes'], 6)}).",
        "Valid AUROC is often exactly 1, so much depends on ties: both tie rules are shown.",
        "Intervals are paired bootstraps over datasets (10,000 resamples, the levels of a dataset kept"
        " together, widened for few datasets as Student's t is); p-values are from sign-flip tests with"
        " Holm's correction over the regimes of a split. A difference is claimed only where the interval"
        " excludes zero and the test agrees.",
        "The paper split follows the published protocol row for row. The dedup split keeps one row of each"
        " prompt: further copies are dropped, and so are prompts that occur under both labels.",
        "Controls: probes on shuffled labels should score about 0.5; a random SAE of the same shape and"
        " L0, and random latents, show what the trained SAE adds. Each is one draw per dataset.",
        f"Solver: {found.solver}.",
    ]
    if names["extended"]:
        points.insert(
            2,
            "Extended baselines are further simple probes that are not in the paper's set"
            f" ({words.some(names['extended'], 8)}): each is shown by itself, and once all together.",
        )
    return Section(
        name="method", title="How to read this", blocks=[Points(items=points)], only="page"
    )


def citation_section() -> Section:
    """How to cite the benchmark's paper."""
    said = (
        "The benchmark is from this paper; cite it, and the version and commit of jaxprobe above."
    )
    blocks = [Prose(text=said), Prose(text=CITATION, tone="code")]
    return Section(name="citation", title="Citation", blocks=blocks, only="page")
