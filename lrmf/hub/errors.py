"""Why a crawl stops, and why a single request of it is not answered."""


class CrawlError(ValueError):
    """What stops the whole crawl; the message names the culprit and the way out."""


class Refusal(Exception):
    """Why a repository or file has no answer; the status says whether that is final.

    It is gated, missing, disabled, unread (a file that is too large) or, if another attempt may
    bring it, error.
    """

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Unreachable(Refusal):
    """A file that lies on a host which cannot be reached."""


class Corrupt(Refusal):
    """A file that differs from its checksum."""


class Stopped(Exception):
    """Another thread ended the crawl; nothing more is to be requested."""
