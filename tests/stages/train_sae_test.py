"""The train_sae stage: which SAEs it trains, where they lie, and which are missing."""

import pytest

from jaxprobe.experiments import schemas
from jaxprobe.stages import train_sae as stage
from jaxprobe.workdir import Workdir
from tests.training.planted import SITE, TINY, FakeStore


def test_a_job_trains_each_of_its_saes_once_in_a_folder_of_its_own(tmp_path, monkeypatch):
    """Another seed lies beside the first; what is there is neither trained nor refused."""
    trained = []

    def train(wanted, store, out_dir, plain=stage.train_sae):
        trained.append(wanted.id)
        return plain(wanted, store, out_dir)

    monkeypatch.setattr(stage, "train_sae", train)
    section = {**vars(TINY), "num_tokens": 256, "d_saes": (32, 96), "target_l0": 6.0}
    section = {key: section[key] for key in ("num_tokens", "batch_size", "d_saes", "target_l0")}
    job = schemas.read({"site": str(SITE), "train_sae": section})
    work, store = Workdir.parse(tmp_path), FakeStore()
    assert [one.d_sae for one in stage.missing(job, work, store)] == [32, 96]
    with pytest.raises(FileNotFoundError, match="run the train_sae stage first"):
        stage.load(job, work, store)
    stage.run(job, store, work)
    assert not stage.missing(job, work, store)
    ids = [f"jump_relu/{SITE}/width_{d_sae}/l0_6" for d_sae in (32, 96)]
    assert [sae.id for sae in stage.load(job, work, store)] == trained == ids
    folders = {path.name for path in (tmp_path / "saes").iterdir()}
    assert len(folders) == 2
    other = schemas.read({"site": str(SITE), "train_sae": {**section, "seed": 1}})
    assert len(stage.missing(other, work, store)) == 2
    stage.run(other, store, work)
    assert len(list((tmp_path / "saes").iterdir())) == 4
    digests = [sae.digest for its in (job, other) for sae in stage.load(its, work, store)]
    assert len({*digests}) == 4
    # Other tokens make other SAEs too.
    assert len(stage.missing(job, work, FakeStore(num_prompts=699))) == 2
