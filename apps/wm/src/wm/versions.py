"""The versions of the packages that a run is made with. Imports nothing heavy, for `wm --version`."""

from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "atari-data",
    "cnn-encoder",
    "hrvq",
    "token-worldmodel",
    "latent-ac",
    "wm",
    "torch",
    "ale-py",
    "numpy",
)


def package_version(name: str) -> str:
    """Version of an installed package, or "from source" if its folder is merely on the path."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "from source"


def package_versions() -> dict[str, str]:
    """Versions of everything a run's artifacts may depend on."""
    return {name: package_version(name) for name in PACKAGES}
