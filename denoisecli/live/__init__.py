"""Live sound: from a microphone through a model to a loudspeaker or a virtual microphone.

- ``filter``: cleans blocks in a thread of its own, between the callbacks of two devices
- ``devices``: finds the devices of the sound card, opens them, and waits for one that went away
- ``portaudio``: calls PortAudio, which may never return if a sound server goes away
- ``virtual``: a virtual microphone of PulseAudio or PipeWire, which other programs can choose

The devices need the extra ``live`` (sounddevice). It may import ``cleaning``, ``audio``,
``system``, ``errors`` and ``types``.
"""
