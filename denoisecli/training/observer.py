"""The interface by which a training run reports its progress."""

from typing import Protocol, runtime_checkable

from denoisecli.training.history import Row


@runtime_checkable
class Observer(Protocol):
    """Object that is informed of the progress of a training run."""

    def on_message(self, text: str) -> None:
        """Receive a message for the user."""

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        """Receive the sizes of the run before the first step.

        Args:
            epochs: Number of epochs of the run; 0 if it has as many as there is time for.
            steps: Number of steps of an epoch.
            epoch: Index of the epoch that training begins or resumes at, from 0.
        """

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """Receive the progress after each training step.

        Args:
            epoch: Index of the epoch, from 0.
            step: Number of finished steps of the epoch.
            logs: Means of loss and metrics over the epoch, up to the last step that they were read
                after: reading them takes until the device has done the step.
        """

    def on_epoch_end(self, row: Row, *, best: bool) -> None:
        """Receive the figures of an epoch after its validation.

        Args:
            row: Row of the history.
            best: Whether the epoch is the best one so far.
        """
