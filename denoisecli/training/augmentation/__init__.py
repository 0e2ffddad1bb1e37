"""Augmentations of the training batches, in ``keras.ops`` for every backend.

Every augmentation is a small class with two methods: ``draw`` returns its random parameters for a
batch as NumPy arrays, whose shapes are the same for every batch; ``apply`` changes the batch by
given parameters, and can be compiled. All randomness comes from a NumPy generator, so that a batch
can be replayed, and is the same on all backends.

Files:

- ``chain``: all augmentations of a batch, in their order
- ``whisper``: voices without a pitch
- ``time``: changes of speed and pitch, shifts in time
- ``filters``: equalization, band limits, removal of rumble
- ``reverberation``: rooms
- ``synthetic_noise``: coloured noise, hum and clicks
- ``mixing``: the level of the speech over time, new mixtures of speech and noise, and their level
- ``distortion``: clipping and masking of the input
- ``ops``: operations on batches of signals that they share

May import ``datasets``, ``spec`` and what lies below them, and the STFT of the losses.
"""
