"""Services of the operating system: files, locks, signals, processes and packages.

- ``atomic_files``: writes a file or folder beside its target and renames it when it is complete
- ``blas``: keeps the matrix products of NumPy and SciPy to one thread
- ``caches``: keeps numba and matplotlib from writing beside their own code
- ``early_exit``: ends the program at once on a signal while it has not begun to work
- ``extras``: reports packages that the base installation does not bring
- ``interrupts``: lets signals wait until a task can stop
- ``locks``: keeps two processes out of the same folder
- ``pools``: runs tasks in worker processes or on a Dask cluster
- ``references``: loads user-defined classes and functions, named as ``module:name``

It imports only ``errors``.
"""
