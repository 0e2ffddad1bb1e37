"""Training losses between the estimated and the clean waveform, in pure ``keras.ops``.

Files:

- ``signals``: what the losses compare, at the model's rate and at 16 kHz
- ``waveform``: all losses that a spec can name, and their weighted sum
- ``own``: user-defined losses, which a spec names as ``module:name``
- ``pesq``: a differentiable model of the perceptual speech quality
- ``estoi``: a differentiable model of the speech intelligibility
- ``listening``: the rating by listeners, as DNSMOS predicts it
- ``tensor_stft``: the STFT and its inverse for batches of tensors

May import ``models``, ``audio``, ``spec`` and what lies below them.
"""
