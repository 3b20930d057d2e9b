"""Activations with a planted dictionary, and an SAE that is quickly trained on them."""

import hashlib

import numpy as np

from jaxprobe.base import Site
from jaxprobe.training.settings import SaeToTrain
from jaxprobe.training.tokens import held_out_prompts

SITE = Site.parse("blocks.3.resid_post")
TINY = SaeToTrain(
    site=SITE,
    d_sae=96,
    target_l0=6,
    num_tokens=250 * 128,
    batch_size=128,
    learning_rate=1e-2,
    compute_dtype="float32",
    checkpoint_seconds=0.0,
)


class FakeStore:
    """Tokens that are sparse sums of 64 planted directions, far from the origin."""

    digest = "fake"

    def __init__(self, num_prompts=700, d_model=24, seed=0):
        rng = np.random.default_rng(seed)
        self._prompt_N = np.repeat(np.arange(num_prompts), rng.integers(3, 12, num_prompts))
        directions_SD = rng.normal(size=(64, d_model))
        directions_SD /= np.linalg.norm(directions_SD, axis=1, keepdims=True)
        active_NS = rng.random((len(self._prompt_N), 64)) < 4 / 64
        height_NS = 50 + 20 * rng.random(active_NS.shape)
        x_ND = (active_NS * height_NS) @ directions_SD + 100 * rng.normal(size=d_model)
        self.x_ND = x_ND.astype(np.float32)
        self.read_rows = []

    def num_tokens(self, site):
        return len(self._prompt_N)

    def read_tokens(self, site, rows):
        assert site == SITE
        self.read_rows.append(np.array(rows))
        return self.x_ND[rows]

    def token_prompt(self, site):
        return self._prompt_N

    def prompt_hashes(self):
        return [hashlib.sha256(b"%d" % i).hexdigest() for i in range(self._prompt_N[-1] + 1)]


def is_held(store, wanted=TINY):
    return held_out_prompts(store.prompt_hashes(), wanted.seed, wanted.held_out)[
        store.token_prompt(SITE)
    ]
