"""`run.json`: the record of the last run in a work directory, and the time that each stage has taken."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging

from jaxprobe import boundary, records, sealed, stopping
from jaxprobe.runs.shards import Shard
from jaxprobe.workdir import Workdir

TIMES = "times"  # stage -> seconds over all starts
_NO_WORK = (
    2.0  # seconds; a stage that found its work done is not counted, and the file stays as it is
)


class RunFile:
    """Keeps `run.json` up to date; writes it only when something has changed."""

    def __init__(self, work: Workdir, shard: Shard | None = None):
        """Reads nothing yet."""
        name = "run.json" if shard is None else f"run-{shard.index}-of-{shard.count}.json"
        self._place = work.root / name

    @contextlib.contextmanager
    def timing(self, stage: str) -> Iterator[None]:
        """Adds the block's wall time in seconds to the stage's."""
        start = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:  # its work is kept, so its time counts; after an error it may be lost
            self._add(stage, time.monotonic() - start)
            raise
        self._add(stage, time.monotonic() - start)

    def update(self, record: Mapping[str, Any]) -> None:
        """Replaces the file's content by the record of a run; times stay."""
        content = self.read()
        times = content.get(TIMES, {})
        made = {**record, "command": records.command(), TIMES: times}
        same = {k: v for k, v in content.items() if k != "command"}
        if json.loads(json.dumps({k: v for k, v in made.items() if k != "command"})) != same:
            self._write(made)

    def times(self) -> dict[str, float]:
        """Seconds that each stage has worked, over all starts."""
        times = self.read().get(TIMES, {})
        return dict(times) if isinstance(times, Mapping) else {}

    def read(self) -> dict[str, Any]:
        """What earlier starts wrote; empty where it is damaged, since it is then written again."""
        try:
            return sealed.read_json(self._place, "delete it")
        except FileNotFoundError:
            return {}
        except boundary.FileError as error:
            logging.warning("%s: it is written anew, the times of earlier starts are lost", error)
            return {}

    def _add(self, stage: str, seconds: float) -> None:
        if seconds < _NO_WORK:
            return
        with stopping.held():
            content = self.read()
            times = dict(content.get(TIMES, {}))
            times[stage] = round(times.get(stage, 0.0) + seconds, 3)
            self._write({**content, TIMES: times})

    def _write(self, content: Mapping[str, Any]) -> None:
        self._place.replace(sealed.to_json(content))
