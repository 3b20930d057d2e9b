"""Writes the report of finished fits, or of the paper's own result files.

python launch/report.py --config=FILE [--workdir=DIR] [--config.KEY=VALUE]
python launch/report.py --published=DIR --published_model=gemma-2-9b --workdir=OUT
python launch/report.py --runs=DIR,DIR,... --workdir=OUT
"""

import sys

from absl import app, flags
from job import config_and_workdir, finish, set_limits
from overrides import FLAGS, parse_flags

from jaxprobe import published
from jaxprobe.stages import report, run

_PUBLISHED = flags.DEFINE_string(
    "published", None, "The authors' repository, or a copy of its `results`."
)
_MODEL = flags.DEFINE_string("published_model", None, "Whose published results.")
_SITE = flags.DEFINE_string(
    "published_site", "", "Which layer's, e.g. blocks.9.resid_post; default: that of the regimes."
)
_SOURCE = flags.DEFINE_string(
    "source", "", "Where the datasets are, for their leak rates: pypi://sae-probes or a folder."
)
_RUNS = flags.DEFINE_list(
    "runs", [], "Work directories of finished runs, for one page of them all."
)


def main(argv: list[str]) -> None:
    """The report stage; results.parquet or published files must be there."""
    if _RUNS.value:
        finish(lambda: print(_report_runs(_RUNS.value, argv), flush=True))
    elif _PUBLISHED.value is None:
        if _MODEL.value or _SITE.value or _SOURCE.value:
            sys.exit("error: --published_model, --published_site and --source need --published=DIR")
        config, workdir = config_and_workdir(argv)
        finish(lambda: print(run.run(config, workdir, ("report",)), flush=True))
    else:
        finish(lambda: print(_report_published(_PUBLISHED.value, _MODEL.value, argv), flush=True))


def _report_runs(folders: list[str], argv: list[str]) -> str:
    set_limits()
    _check_alone("--runs", argv)
    workdir = flags.FLAGS["workdir"].value or "runs/comparison"
    text = report.report_runs(report.ReportConfig(), folders, workdir)
    return f"{text}\nThe report is {workdir}/report/index.html"


def _check_alone(flag: str, argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unknown argument {argv[1]!r}; {FLAGS}")
    if flags.FLAGS["config"].present:
        raise ValueError(f"{flag} and --config exclude each other: give one")


def _report_published(folder: str, model: str | None, argv: list[str]) -> str:
    set_limits()
    _check_alone("--published", argv)
    known = ", ".join(published.models(folder))
    if not model:
        raise ValueError(f"--published_model=MODEL is needed; {folder} has {known}")
    workdir = flags.FLAGS["workdir"].value or f"runs/published-{model}"
    config = report.ReportConfig(site=_SITE.value)
    text = report.report_published(config, folder, model, workdir, source=_SOURCE.value)
    return f"{text}\nThe report is {workdir}/report/index.html"


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
