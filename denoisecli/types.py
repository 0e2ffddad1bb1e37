"""Shapes of the arrays that travel between the modules (checked at run time in the tests)."""

import numpy as np
from jaxtyping import Complex, Float

AudioVector = Float[np.ndarray, "timesteps"]
"""One channel of sound; full scale is -1..1."""

AudioChannels = Float[np.ndarray, "channels timesteps"]
"""Several channels of sound; full scale is -1..1."""

SpectrogramMatrix = Float[np.ndarray, "frequency timesteps"]
"""A real-valued spectrogram: magnitude, power, dB or mel; its timesteps are frames."""

ComplexSpectrogram = Complex[np.ndarray, "frequency frames"]
"""The short-time Fourier transform of an AudioVector."""

AudioBlock = Float[np.ndarray, "channels _"]
"""A piece of a stream: any number of timesteps, even none, at full scale -1..1."""
