"""The order of tokens: each once an epoch, in bounded memory, any step by itself."""

import numpy as np

from jaxprobe.training import tokens
from tests.training.planted import SITE, FakeStore, is_held


def batches(store, row_N, max_bytes, steps, batch_size=50):
    data = tokens.ShuffledTokens(
        store=store, site=SITE, row_N=row_N, batch_size=batch_size, seed=3, max_bytes=max_bytes
    )
    return [data.batch(step) for step in steps], data


def test_streaming_visits_each_token_once_an_epoch_in_bounded_memory(monkeypatch):
    monkeypatch.setattr(tokens, "READ_TOKENS", 100)
    store = FakeStore()
    row_N = np.flatnonzero(~is_held(store))
    store.x_ND[:, 0] = np.arange(len(store.x_ND))  # so that a batch tells its rows
    store.read_rows.clear()
    max_bytes = 1000 * 24 * 4
    drawn, data = batches(store, row_N, max_bytes, range(4 * (len(row_N) // 50)))
    per_epoch = data._num_loads * data._batches_per_load
    assert data._num_loads == -(-len(row_N) // 1000)
    assert data._loaded[1].nbytes <= max_bytes
    epochs = [np.concatenate(drawn[i * per_epoch : (i + 1) * per_epoch])[:, 0] for i in range(2)]
    for epoch in epochs:
        assert len(np.unique(epoch)) == len(epoch)
        assert len(epoch) > 0.9 * len(row_N)
        assert np.isin(epoch, row_N).all()
    assert not np.array_equal(epochs[0], epochs[1])
    # Any step can be asked for by itself: that is what resuming does.
    for step in (0, 7, per_epoch - 1, per_epoch + 3):
        alone, _ = batches(store, row_N, max_bytes, [step])
        np.testing.assert_array_equal(alone[0], drawn[step])


def test_what_fits_in_memory_is_read_once():
    store = FakeStore()
    store.x_ND[:, 0] = np.arange(len(store.x_ND))
    row_N = np.flatnonzero(~is_held(store))
    drawn, data = batches(store, row_N, 2**30, range(3 * (len(row_N) // 50)))
    assert sum(map(len, store.read_rows)) == len(row_N) + 1  # one token to learn the width
    first = np.concatenate(drawn[: data._batches_per_load])
    assert len(np.unique(first[:, 0])) == len(first)
