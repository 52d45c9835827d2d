"""Why a crawl stops, and why a single request of it is not answered."""


class CrawlError(ValueError):
    """What stops the whole crawl; the message names the culprit and the way out."""


class Refusal(Exception):
    """A final answer other than the one asked for, of one repository or file.

    Attributes
    ----------
    status : {"gated", "missing", "disabled", "error"}
    reason : str, one line
    """

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Stopped(Exception):
    """The crawl is being ended elsewhere; nothing more is to be asked."""
