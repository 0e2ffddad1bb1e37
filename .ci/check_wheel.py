"""Check that a wheel holds every file of the packages that git tracks: python check_wheel.py WHEEL.

Run in the checkout. Only a built wheel shows that a package or a data file was left out.
"""

import subprocess
import sys
from zipfile import ZipFile


def main() -> None:
    """Exit with the list of missing files."""
    tracked = subprocess.run(
        ["git", "ls-files", "denoisecli", "models"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    expected = {f"denoisecli/{path}" if path.startswith("models/") else path for path in tracked}
    held = set(ZipFile(sys.argv[1]).namelist())
    if expected - held:
        sys.exit(f"{sys.argv[1]} lacks {', '.join(sorted(expected - held))}")
    print(f"{sys.argv[1]} holds all {len(expected)} files of the packages")


if __name__ == "__main__":
    main()
