"""nbval executes the notebooks under the same conditions as run.py and compares their outputs."""

import tempfile

from nbval.plugin import IPyNbCell
from printed import Printed
from run import isolate


def pytest_configure(config):
    profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    config.add_cleanup(profile.cleanup)
    isolate(profile.name)


def pytest_itemcollected(item):
    if isinstance(item, IPyNbCell):
        sanitize = item.sanitize
        item.sanitize = lambda output: _printed(sanitize(output))


def _printed(output):
    return Printed(output) if isinstance(output, str) else output
