"""The metadata of an ONNX file: all that a program needs to know to use the network."""

from denoisecli.spec.document import Spec


def network_metadata(spec: Spec) -> dict[str, str]:
    """Return the STFT, the mask and the order of its taps; docs/onnx.md shows how to use them.

    Args:
        spec: Spec of the model.
    """
    bands = "none" if spec.features.bands is None else f"{spec.feature_bands} of {spec.stft.bins}"
    magnitude = "one value, the factor of the magnitude"
    factors = magnitude if spec.output.mask == "magnitude" else "a real and an imaginary part"
    return {
        **_stft(spec),
        "mask": spec.output.mask,
        "taps": " ".join(map(str, spec.output.offsets)),
        "compression": f"{spec.features.compression:g} (in the graph)",
        "bands": f"{bands} (in the graph)",
        "description": (
            "spectrum is the STFT of samples from -1 to 1, not scaled, not compressed, all bins: "
            "frame t is centred on sample t * hop_length, with zeros before the sound and behind "
            "it, and is multiplied by the periodic window (sqrt_hann is the square root of hann). "
            f"mask holds {factors}, for every tap one after the other in the order of taps. The "
            "cleaned frame t is the sum over the taps of their factors times frame t + tap; frames "
            "beyond the ends are zero. After the inverse transform, each frame is multiplied by "
            "the window again; the sum of the overlapping frames is divided by that of the squared "
            "windows."
        ),
    }


def stream_metadata(spec: Spec, delay: int) -> dict[str, str]:
    """Return what a program has to know to run the graph for streams; see docs/embed.md.

    Args:
        spec: Spec of the model.
        delay: Number of frames by which the output is behind the input.
    """
    return {
        **_stft(spec),
        "delay_frames": str(delay),
        "initial_state": "zeros",
        "description": (
            "Frame t of the STFT is centred on sample t * hop_length, with zeros before the sound "
            "and behind it. The window is applied before the transform and again after its "
            "inverse; the sum of the overlapping frames is divided by that of the squared windows. "
            "Run the graph once per frame: spectrum and state in, cleaned and next_state out."
        ),
    }


def _stft(spec: Spec) -> dict[str, str]:
    return {
        "name": spec.name,
        "sample_rate": str(spec.audio.sample_rate),
        "n_fft": str(spec.stft.n_fft),
        "hop_length": str(spec.stft.hop_length),
        "window": spec.stft.window,
    }
