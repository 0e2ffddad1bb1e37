"""The interface of what a model is trained, validated and tested with."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from denoisecli.spec.document import Spec
from denoisecli.training.segments import CHUNKS, chunk_samples
from denoisecli.training.stream import Batch, Stream


class BatchSource(ABC):
    """The batches of a run. Each of them depends on the seed and its number only.

    Attributes:
        folder: Folder of the dataset or of the clean recordings, for messages.
        spec: Spec of the model, with numbers for all ranges that it leaves to the dataset.
        dataset_id: Identifier of the dataset, or of the recordings and how they are mixed.
        train_steps: Number of batches of an epoch.
        messages: What the user should know about the batches.
    """

    folder: Path
    spec: Spec
    dataset_id: str
    train_steps: int
    messages: list[str]

    @property
    def chunk(self) -> int:
        """Length of a chunk in samples."""
        return chunk_samples(self.spec)

    @property
    def segment(self) -> int:
        """Length of a segment in samples."""
        return CHUNKS * self.chunk

    def training(self, epoch: int, skip: int = 0) -> Stream:
        """Return the batches of an epoch.

        Successive epochs continue through the data, so that every clip is used equally often
        whatever the number of steps is (see `segments.SegmentOrder`).

        Args:
            epoch: Index of the epoch, from 0.
            skip: Number of batches at the start to leave out.

        Shape:
            - elements: (noisy, clean), each (batch_size, segment), and, if there are recordings
              without the full band, the known bands in Hz, (batch_size, CHUNKS)
        """
        first = epoch * self.train_steps
        indices = range(first + skip, first + self.train_steps)
        return Stream(self._training_batches(), indices)

    @abstractmethod
    def _training_batches(self) -> Callable[[int], Batch]:
        """Return the function from an index, which counts over all epochs, to its batch."""

    @abstractmethod
    def validation(self) -> Stream:
        """Return the batches of the validation set, which are always the same."""

    @abstractmethod
    def test(self) -> Stream:
        """Return the batches of the test set, which are always the same."""

    @abstractmethod
    def source_hashes(self, *sets: str) -> set[str]:
        """Return the hashes of the recordings in sets ("train", "valid", "test")."""
