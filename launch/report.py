"""Writes the report of finished fits, or of the paper's own result files.

python launch/report.py --config=FILE [--workdir=DIR] [--config.KEY=VALUE]
python launch/report.py --published=DIR --published_model=gemma-2-9b --workdir=OUT
python launch/report.py --runs=DIR,DIR,... --workdir=OUT
"""

import sys

from absl import app, flags
from flags import FLAGS, config_and_workdir, finish, parse_flags, set_limits

from jaxprobe import published
from jaxprobe.stages import report, report_published, run

_PUBLISHED = flags.DEFINE_string("published", "", "The authors' repository, or its `results`.")
_MODEL = flags.DEFINE_string("published_model", None, "Model of the published results.")
_SITE = flags.DEFINE_string("published_site", "", "Their layer; default: that of the regimes.")
_SOURCE = flags.DEFINE_string("source", "", "Where the datasets are, for their leak rates.")
_RUNS = flags.DEFINE_list("runs", [], "Work directories of finished runs, for one page.")


def main(argv: list[str]) -> None:
    """The report of a job, of several runs or of published files; loads no dataset, model or SAE."""
    if _RUNS.value or _PUBLISHED.value:
        finish(lambda: print(_report_others(argv), flush=True))
        return
    if _MODEL.value or _SITE.value or _SOURCE.value:
        sys.exit("error: --published_model, --published_site and --source need --published=DIR")
    config, workdir = config_and_workdir(argv)
    finish(lambda: print(run.run(config, workdir, ("report",)), flush=True))


def _report_others(argv: list[str]) -> str:
    """Writes the report of several runs, or of published files, to a work directory of its own."""
    set_limits()
    if len(argv) > 1:
        raise ValueError(f"unknown argument {argv[1]!r}; {FLAGS}")
    if bool(_RUNS.value) + bool(_PUBLISHED.value) + flags.FLAGS["config"].present > 1:
        raise ValueError("--published, --runs and --config exclude each other: give one")
    workdir = flags.FLAGS["workdir"].value
    if _RUNS.value:
        workdir = workdir or "runs/comparison"
        text = report.report_runs(report.ReportConfig(), _RUNS.value, workdir)
    else:
        folder, model = _PUBLISHED.value, _MODEL.value
        if not model:
            known = ", ".join(published.models(folder))
            raise ValueError(f"--published_model=MODEL is needed; {folder} has {known}")
        workdir = workdir or f"runs/published-{model}"
        config = report.ReportConfig(site=_SITE.value)
        text = report_published.report_published(config, folder, model, workdir, _SOURCE.value)
    return f"{text}\nThe report is {workdir}/report/index.html"


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
