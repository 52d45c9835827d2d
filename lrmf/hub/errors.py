"""Why a crawl stops, and why a single request of it is not answered."""


class CrawlError(ValueError):
    """What stops the whole crawl; the message names the culprit and the way out."""


class Refusal(Exception):
    """The Hub's final refusal of one repository or file: gated, missing, disabled or error."""

    def __init__(self, status: str, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason
        self.entry = {"status": status, "reason": reason}  # of the log


class TooLarge(Refusal):
    """A file above the limit, which another attempt does not make smaller."""


class Corrupt(Refusal):
    """A file that differs from its checksum."""


class Stopped(Exception):
    """Another thread ended the crawl; nothing more is to be requested."""
