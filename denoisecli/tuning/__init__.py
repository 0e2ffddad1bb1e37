"""Search the hyperparameters of a spec: train trials with other values and keep the best ones.

Files:

- ``tune``: the search as a whole, from a spec and a dataset to best.json, trials.csv, trials.png
- ``method``: the choice between random, Bayesian and Hyperband
- ``oracle``: chooses the values of a trial, with KerasTuner's oracles
- ``scheduler``: hands out trials, keeps the table of their results and saves both
- ``worker``: trains trials, one after the other
- ``cluster``: carries the scheduler's methods from a chief to its workers on other machines
- ``trials``: results of trials, how they are ranked, and the files and tables made of them
- ``trial_plot``: the picture of a search

May import ``training`` and every room below it. ``method``, ``trials`` and ``trial_plot`` load
neither TensorFlow nor KerasTuner.
"""
