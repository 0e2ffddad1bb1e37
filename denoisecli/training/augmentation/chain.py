"""The chain of all augmentations of a batch.

What changes only some examples is computed for those only.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from denoisecli.spec.training import Augmentation, FromDataset
from denoisecli.training.augmentation.distortion import Clipping, Masking
from denoisecli.training.augmentation.filters import (
    BandLimit,
    Equalization,
    LowPass,
)
from denoisecli.training.augmentation.mixing import Level, LevelChange, Remix
from denoisecli.training.augmentation.ops import Parameters, Values
from denoisecli.training.augmentation.reverberation import Reverberation, Tail
from denoisecli.training.augmentation.synthetic_noise import Clicks, ColouredNoise, Hum
from denoisecli.training.augmentation.target import clean_target
from denoisecli.training.augmentation.time import Speed, TimeShift
from denoisecli.training.augmentation.whisper import Whisper
from denoisecli.training.stream import compiled

Value = TypeVar("Value", float, tuple[float, float])

Bands = tuple[()] | tuple[Float[np.ndarray, "batch stretches"]]
"""Known band in Hz of each stretch of the speech; empty if all recordings have the full band."""

Draws = dict[str, Parameters]
"""Parameters of all augmentations of a chain for one batch."""


class Chain:
    """The augmentations of a spec.

    Speech and noise are changed first, each on its own; then they are mixed; then the mixture is
    changed together with its target; last the input alone is. Until then, noisy and clean differ by
    what the network has to remove: noise, reverberation and rumble.

    Args:
        settings: Section `training.augmentation` of the spec.
        sample_rate: Sample rate in Hz.
        target: What of the reverberation is left in the target; see `Reverberation`.
        rooms: Rooms to put speech into, in place of synthetic ones.
    """

    def __init__(
        self,
        settings: Augmentation,
        sample_rate: int,
        target: str = "early",
        rooms: Sequence[Tail] = (),
    ):
        self.settings, self.sample_rate = settings, sample_rate
        kinds: dict[str, Any] = {
            "whisper": Whisper(settings.whisper, sample_rate),
            "speed": Speed(settings.speed, settings.speed_range, sample_rate),
            "level_change": LevelChange(
                settings.level_change, settings.level_change_db, sample_rate
            ),
            "reverberation": Reverberation(
                settings.reverberation,
                settings.rt60_seconds,
                settings.direct_to_reverberant_db,
                sample_rate,
                target,
                rooms,
            ),
            "coloured_noise": ColouredNoise(
                settings.coloured_noise, settings.synthetic_noise_db, sample_rate
            ),
            "hum": Hum(settings.hum, settings.synthetic_noise_db, sample_rate),
            "clicks": Clicks(settings.clicks, settings.synthetic_noise_db, sample_rate),
            "band_limit": BandLimit(
                settings.band_limit, settings.low_cut_hz, settings.high_cut_hz, sample_rate
            ),
            "low_pass": LowPass(settings.low_pass, settings.low_pass_hz, sample_rate),
            "clipping": Clipping(settings.clipping, settings.clipping_db),
            "masking": Masking(settings.masking, settings.masking_db, sample_rate),
        }
        self._kinds: dict[str, Any] = {
            name: kind for name, kind in kinds.items() if kind.probability > 0
        }
        if settings.equalization_db > 0:
            self._kinds["equalization"] = Equalization(settings.equalization_db)
        if settings.time_shift:
            self._kinds["time_shift"] = TimeShift()
        if settings.remix:
            self._kinds["remix"] = Remix(
                _resolved(settings.snr_db),
                _resolved(settings.second_noise),
                _resolved(settings.third_noise),
                settings.clean_only,
                settings.noise_only,
            )
        if settings.level_dbfs is not None:
            self._kinds["level"] = Level(_resolved(settings.level_dbfs))

    def draw(self, batch: int, timesteps: int, rng: np.random.Generator) -> Draws:
        """Draw the parameters of all augmentations.

        Args:
            batch: Number of examples.
            timesteps: Length of an example in samples.
            rng: Source of the random numbers; the same state gives the same parameters.
        """
        draws = {}
        for name, kind in self._kinds.items():
            if isinstance(kind, Speed | Equalization):
                draws[f"{name}/speech"] = kind.draw(batch, rng)
                draws[f"{name}/noise"] = kind.draw(batch, rng)
            elif isinstance(kind, Whisper | ColouredNoise | Clicks):
                draws[name] = kind.draw(batch, timesteps, rng)
            else:
                draws[name] = kind.draw(timesteps if name == "time_shift" else batch, rng)
        return draws

    def apply(
        self, speech: Any, noise: Any, draws: dict[str, Values], target: Any | None = None
    ) -> tuple[Any, Any]:
        """Apply the augmentations to a batch.

        Args:
            speech: Speech as it is heard.
            noise: What the network has to remove, without reverberation.
            draws: Random parameters.
            target: What the network has to make of the speech, if it is not the speech itself.

        Returns:
            The new input and its target.

        Shape:
            - all signals: (batch, timesteps), float32
        """
        kinds = self._kinds
        clean = speech if target is None else target
        if "whisper" in kinds:
            speech, clean = kinds["whisper"].apply(speech, clean, draws["whisper"])
        if target is None:
            (clean,) = self._change_source([clean], draws, "speech")
            speech = clean
        else:
            speech, clean = self._change_source([speech, clean], draws, "speech")
        if "level_change" in kinds:
            change = kinds["level_change"].apply
            clean = change(clean, draws["level_change"])
            speech = clean if target is None else change(speech, draws["level_change"])
        (noise,) = self._change_source([noise], draws, "noise")
        for name in ("coloured_noise", "hum", "clicks", "time_shift"):
            if name in kinds:
                noise = kinds[name].apply(noise, draws[name])
        if "reverberation" in kinds:
            speech, clean = kinds["reverberation"].apply(
                speech, draws["reverberation"], None if target is None else clean
            )
        clean = clean_target(clean, self.settings, self.sample_rate)
        if "remix" in kinds:
            speech, noise = kinds["remix"].apply(speech, noise, draws["remix"])
            clean = clean * draws["remix"]["speech_gain"][:, None]
        noisy = speech + noise
        for name in ("band_limit", "low_pass", "level"):
            if name in kinds:
                noisy, clean = kinds[name].apply(noisy, clean, draws[name])
        for name in ("clipping", "masking"):
            if name in kinds:
                noisy = kinds[name].apply(noisy, draws[name])
        return noisy, clean

    def moved_bands(self, bands: Bands, draws: Draws) -> Bands:
        """Return where the known bands of the speech are after the augmentations.

        Args:
            bands: Known band of each stretch of the speech in Hz, if they are not all full.
            draws: Random parameters.
        """
        if "speed" not in self._kinds:
            return bands
        moved = self._kinds["speed"].moved_bands
        return tuple(moved(band, draws["speed/speech"]) for band in bands)

    def _change_source(
        self, signals: list[Any], draws: dict[str, Values], source: str
    ) -> list[Any]:
        """Change the speed and the equalization of speech and its target, or of noise."""
        if "speed" in self._kinds:
            change = self._kinds["speed"].apply
            signals = [change(signal, draws[f"speed/{source}"]) for signal in signals]
        if "equalization" in self._kinds:
            signals = self._kinds["equalization"].apply(signals, draws[f"equalization/{source}"])
        return signals


class CompiledChain:
    """A chain as a program of the Keras backend, for batches of one size.

    Args:
        chain: The augmentations.
    """

    def __init__(self, chain: Chain):
        self.chain = chain
        self._apply = compiled(chain.apply)

    def __call__(
        self,
        speech: Float[np.ndarray, "batch timesteps"],
        noise: Float[np.ndarray, "batch timesteps"],
        rng: np.random.Generator,
        target: Float[np.ndarray, "batch timesteps"] | None = None,
        bands: Bands = (),
    ) -> tuple[Any, ...]:
        """Draw the parameters of a batch and apply the augmentations; see `Chain.apply`.

        Returns:
            The new input, its target and, if they are given, its bands; see `Chain.moved_bands`.
        """
        batch, timesteps = speech.shape
        draws = self.chain.draw(batch, timesteps, rng)
        moved = self.chain.moved_bands(bands, draws)
        return *self._apply(speech, noise, draws, target), *moved


def _resolved(value: Value | FromDataset) -> Value:
    """Return a value of the spec, which must not be "dataset" any more."""
    if isinstance(value, str):
        raise ValueError("the augmentation leaves a range to the dataset: see resolve_ranges")
    return value
