"""The command line: read the arguments, call the other rooms, show progress and results.

- ``app``: the program, its commands, the options that all of them share, and exit codes
- ``options``: options that several commands share, and the reading of their values
- ``console``: the only printing of messages, results, tables, JSON and errors
- ``displays``: progress displays
- ``clean``, ``live``, ``adapting``, ``serving``, ``sound``, ``datasets``, ``training``, ``tuning``,
  ``measuring``, ``models``: commands

It may import every other room; no room imports it. A command is imported when it is used, and
TensorFlow, librosa and matplotlib are imported only by the functions that need them, so that help
and errors come at once.
"""

import sys

from denoisecli.system.blas import use_one_thread
from denoisecli.system.early_exit import exit_on_signals


def main() -> None:
    """Run the `denoise` script."""
    exit_on_signals()  # importing the program and the command takes a while
    use_one_thread()
    if sys.platform == "win32":
        from colorama import just_fix_windows_console

        just_fix_windows_console()  # before Rich looks whether the console knows escape codes
    from denoisecli.cli import app

    app.main()
