"""The paper's own result files -> result rows.

Reads a folder laid out as in the authors' repository: `results/baseline_probes_MODEL/` with `normal_settings/`,
`scarcity/`, `imbalance/`, `corrupt/` and `ood/`, and `results/sae_probes_MODEL/` with a `*_setting/` folder per
regime, at any depth below these. Whatever is absent is a missing arrow. What the files do not say is 0 (`num_train`,
`num_test`), NaN (`best_c`, the valid AUROC of covariate shift) or False (`converged`).
"""

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxprobe import base, checks
from jaxprobe.published.cells import Cells, read_rows

BASELINES, SAES = "baseline_probes_", "sae_probes_"  # folder names, followed by the model's
SEED = 42
MARK = "published-"  # how the fingerprint of every such row begins
METHODS = {"logreg": "logistic"}  # our name, where it differs from theirs
# The block of all regimes other than standard, where no SAE file names it (PROTOCOL section 2).
REGIME_BLOCKS = {"gemma-2-9b": 20, "llama-3.1-8b": 16, "gemma-2-2b": 12}
# The SAE and k of the column `test_auc_sae` of `ood/all_results.csv`, which the file does not name.
SHIFT_SAES = {"gemma-2-9b": ("layer_20/width_131k/average_l0_276", 128)}

_SCORES = ("test_f1", "test_acc", "test_auc", "val_auc")
_SAE_COLUMNS = ("dataset", "k", "layer", "sae_id", "reg_type", *_SCORES)


class _Levels(NamedTuple):
    """How a regime's level is read: its column, and 1 / the step to which it is rounded."""

    regime: str
    column: str = ""
    ticks: int = 1


_BASELINE_FOLDERS = {
    "scarcity": _Levels("scarcity", "num_train"),
    "imbalance": _Levels("imbalance", "ratio", 20),
    "corrupt": _Levels("label_noise", "ratio", 20),
}
_SAE_FOLDERS = {
    "normal_setting": _Levels("standard"),
    "scarcity_setting": _Levels("scarcity", "num_train"),
    "class_imbalance_setting": _Levels("imbalance", "frac", 20),  # 0.49999999999999994 is 0.5
    "label_noise_setting": _Levels("label_noise", "corrupt_frac", 20),
    "ood_setting": _Levels("covariate_shift"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """The published results of one model.

    Attributes:
        rows: Result rows; baselines first, then SAEs by increasing width.
        site: The site of all regimes other than standard; "" where no file names it.
        files: SHA-256 of each file read, by its path below the folder.
        notes: What a reader of the numbers should know about the files.
    """

    rows: tuple[base.ResultRow, ...]
    site: str
    files: Mapping[str, str]
    notes: tuple[str, ...]


def models(folder: Path | str) -> tuple[str, ...]:
    """The models whose results a folder holds, in alphabetical order.

    Raises:
        FileNotFoundError: There is no such folder, or it holds no published results.
    """
    found = {
        path.name.removeprefix(kind)
        for kind in (BASELINES, SAES)
        for path in _model_folders(Path(folder), f"{kind}*")
    }
    if not found:
        what = "holds no published results" if Path(folder).is_dir() else "is not a folder"
        raise FileNotFoundError(
            f"{folder} {what}: wanted folders {BASELINES}MODEL and {SAES}MODEL in it, in its"
            " `results` or one level further down; give the authors' repository or a copy of it"
        )
    return tuple(sorted(found))


def read(folder: Path | str, model: str) -> Published:
    """Reads every result file of a model.

    Args:
        folder: The authors' repository, its `results`, or a copy of them.
        model: As in the folders' names, for example `gemma-2-9b`.

    Raises:
        FileNotFoundError: The folder holds no published results.
        ValueError: An unknown model, a file without a required column, or a cell that is not a number.
    """
    checks.check_choice("published model", model, models(folder))
    return _Reader(Path(folder), model).read()


def _model_folders(folder: Path, name: str) -> list[Path]:
    """Folders of that name in `folder`, one or two levels down, the highest first."""
    return [
        path
        for depth in ("", "*/", "*/*/")
        for path in sorted(folder.glob(depth + name))
        if path.is_dir()
    ]


class _Reader:
    """Collects the rows, files and notes of one model."""

    def __init__(self, folder: Path, model: str):
        """Reads nothing yet."""
        self.folder, self.model = folder, model
        self.files: dict[str, str] = {}
        self.notes: list[str] = []

    def read(self) -> Published:
        """Reads all files of the model."""
        saes = self._sae_rows()
        site = self._regime_site(saes)
        rows = [*self._standard_baselines(), *self._regime_baselines(site)]
        shift = self._shift_rows(site, [row.features for row in saes])
        if any(row.features != base.ACTIVATIONS for row in shift):
            saes = [row for row in saes if row.regime != "covariate_shift"]
        rows = self._distinct(sorted([*rows, *shift, *saes], key=_place))
        digest = hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()[:12]
        mark = f"{MARK}{digest}"
        rows = [dataclasses.replace(row, fingerprint=mark) for row in rows]
        return Published(
            rows=tuple(rows), site=site, files=dict(self.files), notes=tuple(self.notes)
        )

    # --- baselines

    def _standard_baselines(self) -> Iterator[base.ResultRow]:
        for path in self._in(BASELINES, "normal_settings", "layer*_results.csv"):
            layer = path.stem.removeprefix("layer").removesuffix("_results")
            for got in self._table(path, ("dataset", "method", *_SCORES)):
                yield self._baseline(got, "standard", math.nan, _site(layer, got))

    def _regime_baselines(self, site: str) -> Iterator[base.ResultRow]:
        for name, levels in _BASELINE_FOLDERS.items():
            for path in self._in(BASELINES, name, "all_results.csv")[:1]:
                columns = dict.fromkeys(("dataset", "method", "num_train", levels.column))
                for got in self._table(path, (*columns, *_SCORES)):
                    level = _level(got, levels)
                    yield self._baseline(got, levels.regime, level, site)

    def _baseline(self, got: Cells, regime: str, level: float, site: str) -> base.ResultRow:
        method = METHODS.get(got["method"], got["method"])
        return self._row(got, got, regime, level, site, base.ACTIVATIONS, method, 0)

    # --- SAEs

    def _sae_rows(self) -> list[base.ResultRow]:
        rows: list[base.ResultRow] = []
        for name, levels in _SAE_FOLDERS.items():
            for path in self._in(SAES, name, "all_metrics.csv")[:1]:
                columns = dict.fromkeys((*_SAE_COLUMNS, levels.column))
                columns.pop("", None)
                rows += (self._sae(got, levels) for got in self._table(path, tuple(columns)))
        regimes = {row.regime for row in rows}
        if "standard" not in regimes and "label_noise" in regimes:
            # gemma-2-9b's standard file was never published whole.
            rows += [
                dataclasses.replace(row, regime="standard", level=math.nan)
                for row in rows
                if row.regime == "label_noise" and row.level == 0
            ]
            self.notes.append(
                "There is no file of SAE probes in the standard regime: its SAE rows are the"
                " label-noise rows without flipped labels, which are the same fits."
            )
        return rows

    def _sae(self, got: Cells, levels: _Levels) -> base.ResultRow:
        features, method = got["sae_id"], f"logistic_{got['reg_type']}"
        if "sae_l0" in got:  # several SAEs share an id there
            features += f"/l0_{got['sae_l0']}"
        if got.get("binarize", "").lower() == "true":
            method += "_binarized"
        level, site = _level(got, levels), _site(got["layer"], got)
        k = int(got.number("k", needed=True))
        return self._row(got, got, levels.regime, level, site, features, method, k)

    # --- covariate shift: one test AUROC per set, and no valid AUROC to choose by

    def _shift_rows(self, site: str, saes: Sequence[str]) -> list[base.ResultRow]:
        rows = []
        for path in self._in(BASELINES, "ood", "all_results.csv")[:1]:
            for got in self._table(path, ("dataset", "test_auc_baseline")):
                common = (got, {}, "covariate_shift", math.nan, site)
                row = self._row(*common, base.ACTIVATIONS, "logistic", 0)
                rows.append(dataclasses.replace(row, test_auroc=got.number("test_auc_baseline")))
                if "test_auc_sae" in got:
                    row = self._row(*common, *self._shift_sae(saes))
                    rows.append(dataclasses.replace(row, test_auroc=got.number("test_auc_sae")))
        if rows:
            self.notes.append(
                "The covariate-shift baselines have no valid AUROC to choose between them and SAE"
                " probes, so that regime has no quiver: the one baseline is compared with the SAE"
                " probe."
            )
        if self._in(SAES, "ood_setting", "all_metrics.csv") and any(
            row.features != base.ACTIVATIONS for row in rows
        ):
            self.notes.append(
                "The covariate-shift SAE rows are those of `ood/all_results.csv`; `OOD_setting` is"
                " left out."
            )
        return rows

    def _shift_sae(self, saes: Sequence[str]) -> tuple[str, str, int]:
        only = next(iter(saes)) if len(set(saes)) == 1 else "unnamed SAE"
        sae, k = SHIFT_SAES.get(self.model, (only, 128))
        return sae, "logistic_l1", k

    # --- files

    def _regime_site(self, saes: Sequence[base.ResultRow]) -> str:
        """The site of files that do not name their layer."""
        if self.model in REGIME_BLOCKS:
            return f"blocks.{REGIME_BLOCKS[self.model]}.resid_post"
        sites = {row.site for row in saes if row.regime != "standard"} or {r.site for r in saes}
        if not sites:
            files = self._in(BASELINES, "normal_settings", "layer*_results.csv")
            layers = [path.stem.removeprefix("layer").removesuffix("_results") for path in files]
            sites = {_site(layer, None) for layer in layers}
        if len(sites) != 1:
            self.notes.append("No file names the layer of the regimes other than standard.")
        return sites.pop() if len(sites) == 1 else "unknown"

    def _in(self, kind: str, name: str, pattern: str) -> list[Path]:
        """Files below one of the model's folders, in any case of its name, the highest first."""
        found = []
        for folder in _model_folders(self.folder, f"{kind}{self.model}")[:1]:
            for inner in folder.rglob("*"):
                if inner.is_dir() and inner.name.lower() == name.lower():
                    found += inner.rglob(pattern)
        return sorted(set(found), key=lambda path: (len(path.parts), str(path)))

    def _table(self, path: Path, columns: Iterable[str]) -> Iterator[Cells]:
        data = path.read_bytes()
        self.files[str(path.relative_to(self.folder))] = hashlib.sha256(data).hexdigest()
        return read_rows(path, data, tuple(columns))

    def _row(self, got: Cells, scores, regime, level, site, features, method, k) -> base.ResultRow:
        score: Callable[[str], float] = lambda name: (
            got.number(name) if name in scores else math.nan
        )
        return base.ResultRow(
            **{"model": self.model, "site": site, "features": features, "method": method},
            **{"num_latents": k, "dataset": got["dataset"], "regime": regime, "level": level},
            **{"protocol": "paper", "seed": SEED, "num_test": 0},
            num_train=int(got.number("num_train", needed=True)) if "num_train" in got else 0,
            **{"valid_auroc": score("val_auc"), "test_auroc": score("test_auc")},
            **{"test_f1": score("test_f1"), "test_accuracy": score("test_acc")},
            **{"best_c": math.nan, "converged": False, "fingerprint": ""},
        )

    def _distinct(self, rows: Sequence[base.ResultRow]) -> list[base.ResultRow]:
        """The first row of each probe that has a test AUROC."""
        scored = [row for row in rows if not math.isnan(row.test_auroc)]
        first = {row.key(): row for row in reversed(scored)}
        kept = [row for row in scored if first[row.key()] is row]
        for count, what in (
            (len(rows) - len(scored), "have no test AUROC"),
            (len(scored) - len(kept), "repeat a probe"),
        ):
            if count:
                self.notes.append(f"{count} rows of the files {what} and are left out.")
        return kept


def _level(got: Cells, levels: _Levels) -> float:
    if not levels.column:
        return math.nan
    return round(got.number(levels.column, needed=True) * levels.ticks) / levels.ticks


def _site(layer: str, got: Cells | None) -> str:
    """The site of a layer as the files name it: a block's number, or `embed`."""
    if layer == "embed":
        return layer
    if not re.fullmatch(r"\d+(\.0)?", layer):
        where = got.where if got else "a file's name"
        raise ValueError(f"{where}: a layer must be a block's number or `embed`, got {layer!r}")
    return f"blocks.{int(float(layer))}.resid_post"


def _place(row: base.ResultRow) -> tuple:
    """Sort key: baselines first, then SAEs by increasing width."""
    return row.features != base.ACTIVATIONS, _natural(row.features)


@functools.cache
def _natural(name: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key by the numbers in a name: width_16k before width_131k before width_1m."""
    scale = {"k": 1e3, "m": 1e6}
    parts = re.findall(r"\d+[km]?(?![a-z])|\d+|\D+", name)
    return tuple(
        (0, int(part.rstrip("km")) * scale.get(part[-1], 1), "")
        if part[0].isdigit()
        else (1, 0.0, part)
        for part in parts
    )
