"""Augmentations of the training batches, as TensorFlow graph code for the tf.data pipeline.

Every augmentation is a small class with two methods: ``draw`` returns its random parameters for a
batch, ``apply`` changes the batch by given parameters. All randomness comes from a stateless seed,
so that a batch can be replayed.

Files:

- ``chain``: all augmentations of a batch, in their order
- ``time``: changes of speed and pitch, shifts in time
- ``filters``: equalization, band limits, removal of rumble
- ``reverberation``: simulated rooms
- ``synthetic_noise``: coloured noise, hum and clicks
- ``mixing``: new mixtures of speech and noise, and their level
- ``distortion``: clipping and masking of the input
- ``ops``: operations on batches of signals that they share

May import ``datasets``, ``spec`` and what lies below them.
"""
