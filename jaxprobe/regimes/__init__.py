"""Data regimes: which rows of a dataset train, validate and test a probe.

Rows and labels only; no activations. Protocol `paper` draws exactly the rows of the published code; protocol
`dedup` applies the same draw to distinct prompts, so no text is in both training and test rows.
"""

from jaxprobe.regimes.draws import IMBALANCE_RATIOS as IMBALANCE_RATIOS
from jaxprobe.regimes.draws import MAX_TRAIN as MAX_TRAIN
from jaxprobe.regimes.draws import MIN_TEST as MIN_TEST
from jaxprobe.regimes.draws import NOISE_FRACTIONS as NOISE_FRACTIONS
from jaxprobe.regimes.draws import SCARCITY_SIZES as SCARCITY_SIZES
from jaxprobe.regimes.draws import SHIFT_POOL as SHIFT_POOL
from jaxprobe.regimes.draws import draw_rows as draw_rows
from jaxprobe.regimes.draws import flip_labels as flip_labels
from jaxprobe.regimes.draws import num_levels as num_levels
from jaxprobe.regimes.folds import NUM_FOLDS as NUM_FOLDS
from jaxprobe.regimes.folds import SAME_AUROC as SAME_AUROC
from jaxprobe.regimes.folds import validation_folds as validation_folds
from jaxprobe.regimes.making import SHIFTED as SHIFTED
from jaxprobe.regimes.making import TEST as TEST
from jaxprobe.regimes.making import Splits as Splits
from jaxprobe.regimes.making import split_of as split_of
from jaxprobe.regimes.making import splits as splits
from jaxprobe.regimes.texts import DEDUP_BY as DEDUP_BY
from jaxprobe.regimes.texts import distinct_rows as distinct_rows
from jaxprobe.regimes.texts import leak_rate as leak_rate
from jaxprobe.regimes.texts import normalised as normalised
