"""Clean a mono recording frame by frame with NumPy and ONNX Runtime alone.

    denoise export speech-live --format onnx-stream -o stream.onnx
    python stream.py stream.onnx noisy.wav clean.wav

A program for live sound does the same with every hop that arrives.
"""

import sys

import numpy as np
import onnxruntime
import soundfile

model, source, target = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
about = session.get_modelmeta().custom_metadata_map
n_fft, hop, delay = (int(about[key]) for key in ("n_fft", "hop_length", "delay_frames"))
assert about["window"] == "sqrt_hann"
window = np.sin(np.pi * np.arange(n_fft) / n_fft)
noisy, rate = soundfile.read(source)
assert rate == int(about["sample_rate"]) and noisy.ndim == 1

frames = 1 + -(-len(noisy) // hop)
padded = np.zeros((frames + delay) * hop + n_fft)
padded[n_fft // 2 : n_fft // 2 + len(noisy)] = noisy
state = np.zeros((1, session.get_inputs()[1].shape[1]), np.float32)
total, weight = np.zeros(padded.size), np.zeros(padded.size)
for t in range(frames + delay):
    spectrum = np.fft.rfft(padded[t * hop :][:n_fft] * window).astype(np.complex64)
    inputs = {"spectrum": spectrum.view(np.float32).reshape(1, -1, 1, 2), "state": state}
    if delay:  # the model looks ahead: behind the end, it still has to return what it delayed
        inputs["present"] = np.array([t < frames], np.float32)
    cleaned, state = session.run(["cleaned", "next_state"], inputs)
    if t >= delay:
        frame = slice((t - delay) * hop, (t - delay) * hop + n_fft)
        total[frame] += np.fft.irfft(cleaned.view(np.complex64)[0, :, 0, 0]) * window
        weight[frame] += window**2
clean = total / np.maximum(weight, 1e-9)
soundfile.write(target, clean[n_fft // 2 :][: len(noisy)], rate, "FLOAT")
