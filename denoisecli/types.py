"""Shapes of the arrays that travel between the rooms; the tests check them at run time.

Within one signature, axes of the same name have the same length. The time axis of a complex
spectrogram is therefore called ``frames``: it stands beside the ``timesteps`` of its sound.
"""

import numpy as np
from jaxtyping import Complex, Float

AudioVector = Float[np.ndarray, "timesteps"]
"""One channel of sound; full scale is -1..1."""

AudioChannels = Float[np.ndarray, "channels timesteps"]
"""One or more channels of sound; full scale is -1..1."""

AudioBlock = Float[np.ndarray, "channels _"]
"""A block of a stream of sound, possibly without samples; full scale is -1..1."""

SpectrogramMatrix = Float[np.ndarray, "frequency timesteps"]
"""A real-valued spectrogram (magnitude, power, level or mel); its timesteps are frames."""

ComplexSpectrogram = Complex[np.ndarray, "frequency frames"]
"""The short-time Fourier transform of an ``AudioVector``."""
