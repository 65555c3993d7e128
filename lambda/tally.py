"""How far a round of training is: epochs done of all that there can be, and models done of all.

The bar counts epochs, so that the time left is known long before the first model is done; a model that stops
early, or fails, counts as if it had run them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from penstock.batch.fleet import Progress

Told = Callable[[int, int | None, str], None]
"""Called with (epochs done, all epochs, text)."""


class Tally:
    """Counts for one round; `epoch` may be called from another thread."""

    def __init__(self, epochs: Mapping[str, int], *, before: int, told: Told | None) -> None:
        """`epochs`: the most of each model that is to be trained; `before`: models that are done already."""
        self._most, self._told = dict(epochs), told
        self._epochs = dict.fromkeys(epochs, 0)
        self._done: set[str] = set()
        self._before = before

    def epoch(self, step: Progress) -> None:
        """One epoch of one model is done."""
        if step.name not in self._done:  # it may be heard after the model's end
            self._epochs[step.name] = step.epoch
        self._tell(f"{step.name} epoch {step.epoch} loss {step.loss:.3g}")

    def model(self, name: str) -> None:
        """A model is done, well or not."""
        self._done.add(name)
        self._epochs[name] = self._most[name]
        self._tell(name)

    def _tell(self, text: str) -> None:
        if self._told is not None:
            models = f"{self._before + len(self._done)}/{self._before + len(self._most)} models"
            self._told(sum(self._epochs.values()), sum(self._most.values()), f"{models}, {text}")
