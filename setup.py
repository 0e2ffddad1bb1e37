"""Find the packages: models/ is installed as denoisecli.models, which pyproject.toml cannot say."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["denoisecli", "denoisecli.*"]),
        *(f"denoisecli.{name}" for name in find_packages(include=["models", "models.*"])),
    ],
    package_dir={"denoisecli.models": "models"},
)
