"""Scores of models and other denoisers on noisy recordings, with their clean sound or without.

- ``evaluate``: cleans pairs with several estimators and scores the results
- ``estimators``: what can be evaluated: models, folders, external programs, classical baselines
- ``wiener``: a classical Wiener filter, one of the baselines
- ``pairs``: pairs (noisy, clean) from two folders or from a stored dataset, and real recordings
- ``leaks``: recordings of a test set that a model was trained on
- ``clusters``: which pairs share a clean recording
- ``metrics``: PESQ, STOI, SI-SDR and other metrics; ``training`` uses this file only
- ``segmental``: metrics that are means over short frames
- ``pauses``: levels of speech and noise without a clean reference
- ``recognition``: word error rate of a speech recognizer
- ``scores``: results: scores per file, means with intervals, gains over a baseline
- ``formatting``: text of figures and choice of groups, for the terminal and the report
- ``report``: a self-contained HTML page (``report.html``, ``report.css``, ``report.js``); its
  colours and controls (``theme.css``) and its player (``player.js``) serve other pages, too
- ``cleaned``: the same page about recordings that were cleaned
- ``previews``: pictures and sound of that page

The room may import ``cleaning``, ``datasets``, ``models``, ``audio``, ``spec``, ``system``,
``errors`` and ``types``. Importing it loads neither TensorFlow nor ONNX Runtime.
"""
