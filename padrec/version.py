"""The version, which the build takes from the last git tag."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("padrec")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
