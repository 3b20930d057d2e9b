"""Measured L0 against the published one: a large gap reveals a wrong layer, normalisation or threshold."""

from absl import logging

from jaxprobe.checkpoints import LoadedSae

FAR_OFF = 2.0  # a ratio; loose, because publishers measure on other tokens than prompts' last ones


class MeasuredL0:
    """Counts active latents of one dataset, block by block."""

    def __init__(self, sae: LoadedSae, dataset: str, num_rows: int):
        """Starts counting.

        Args:
            sae: The SAE, whose `expected_l0` is the published value.
            dataset: The dataset's name, for the message.
            num_rows: Its rows.
        """
        self._sae, self._dataset, self._num_rows = sae, dataset, num_rows
        self._counts = []  # left on the device until `value` is read, so that nothing waits

    def add(self, z_NB) -> None:
        """Counts a block of latents of all rows."""
        self._counts.append((z_NB != 0).sum())

    @property
    def value(self) -> float:
        """Mean number of active latents of a row."""
        return sum(int(count) for count in self._counts) / self._num_rows

    def report(self) -> bool:
        """Logs the measured and the published value; returns whether they are far apart."""
        expected = self._sae.expected_l0
        if not expected:
            logging.info("%s on %s: L0 %.1f", self._sae.id, self._dataset, self.value)
            return False
        text = f"{self._sae.id} on {self._dataset}: L0 {self.value:.1f}, published {expected:.1f}"
        far = not 1 / FAR_OFF <= self.value / expected <= FAR_OFF
        if far:
            logging.warning(
                "%s: far apart; is this the model and layer that the SAE was trained on (%s), and"
                " are its normalisation and threshold read correctly?",
                text,
                self._sae.site,
            )
        else:
            logging.info("%s", text)
        return far
