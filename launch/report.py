"""Writes the report of finished fits, or of the paper's own result files.

python launch/report.py --config=FILE [--workdir=DIR] [--config.KEY=VALUE]
python launch/report.py --published=DIR --published_model=gemma-2-9b --workdir=OUT
"""

import sys

from absl import app, flags
from flags import FLAGS, config_and_workdir, finish, parse_flags, set_limits

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


def main(argv: list[str]) -> None:
    """The report stage; results.parquet or published files must be there."""
    if _PUBLISHED.value is None:
        if _MODEL.value or _SITE.value or _SOURCE.value:
            sys.exit("error: --published_model, --published_site and --source need --published=DIR")
        config, workdir = config_and_workdir(argv)
        finish(lambda: print(run.run(config, workdir, ("report",)), flush=True))
    else:
        finish(lambda: print(_report_published(_PUBLISHED.value, _MODEL.value, argv), flush=True))


def _report_published(folder: str, model: str | None, argv: list[str]) -> str:
    set_limits()
    if len(argv) > 1:
        raise ValueError(f"unknown argument {argv[1]!r}; {FLAGS}")
    if flags.FLAGS["config"].present:
        raise ValueError("--published and --config exclude each other: give one")
    known = ", ".join(published.models(folder))
    if not model:
        raise ValueError(f"--published_model=MODEL is needed; {folder} has {known}")
    workdir = flags.FLAGS["workdir"].value or f"runs/published-{model}"
    config = report.ReportConfig(site=_SITE.value)
    text = report.report_published(config, folder, model, workdir, source=_SOURCE.value)
    return f"{text}\nThe report is {workdir}/report/index.html"


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
