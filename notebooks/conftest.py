"""nbval executes the notebooks under the same conditions as run.py and compares their outputs."""

import sys
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
        item.compare_outputs = _showing_stderr(item.compare_outputs)


def _printed(output):
    return Printed(output) if isinstance(output, str) else output


def _showing_stderr(compare):
    """A comparison that also prints what a cell wrote to stderr; nbval only says that it did."""

    def compare_and_show(outputs, *others, **options):
        for output in outputs:
            if output.get("name") == "stderr":
                print(output["text"], file=sys.stderr)
        return compare(outputs, *others, **options)

    return compare_and_show
