"""Noisy recordings in, clean recordings out.

- ``denoiser``: the public API, which cleans arrays, streams and files
- ``engines``: run the network with ONNX Runtime or Keras
- ``masking``: applies the network to sound, block by block
- ``frames``: applies the network frame by frame, with its state carried, to streams
- ``conditioning``: what the network hears: without a DC offset, not too quiet
- ``transform``: the STFT in front of the network, at the sample rate of the sound
- ``stream``: cleans a stream at any sample rate, and mixes the original back in
- ``file``: cleans one recording, from a file or a pipe to a file or a pipe
- ``tracks``: resample the results and write them, scaled down if wanted
- ``strength``: chooses the strength that suits a recording
- ``normalization``: brings the result to a loudness
- ``remix``: mixes a recording with its clean version, at another strength
- ``targets``: decides which recording is written where
- ``batch``: cleans many recordings, in several processes or on a cluster
- ``choices``: enumerations

It may import ``models``, ``audio``, ``spec``, ``system``, ``errors`` and ``types``.
"""
