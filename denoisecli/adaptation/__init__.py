"""Teach a trained model the noise of the user's own recordings.

- ``adapt``: the whole of it, and what it writes
- ``material``: noise and speech, found in recordings, divided and mixed
- ``voice_activity``: where in a recording somebody speaks
- ``generated``: noise that is generated, so that other noise is not forgotten
- ``recipe``: the spec of the training
- ``blending``: the mean of the weights before and after it
- ``judgement``: whether the adapted model is better
- ``page``: recordings before and after, to look at and to hear
- ``voices/``: about five minutes of speech by three voices, to mix the noise with

It may import ``training`` and all rooms below that.
"""
