"""nbval executes the notebooks under the same conditions as run.py."""

import tempfile

from run import isolate


def pytest_configure(config):
    profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    config.add_cleanup(profile.cleanup)
    isolate(profile.name)
