"""Every error this project raises on purpose, arranged by who can act on it.

    QstashCloneError
    ├── CallerError                 the request is at fault; the caller can change it
    │   ├── InvalidRequest          a header, parameter, destination or body that is malformed
    │   ├── Unauthorized            no credential, or one that is not known
    │   ├── Forbidden               a credential that may not do this
    │   ├── NotFound                the addressed object does not exist
    │   ├── MethodNotAllowed        the path exists, with other methods
    │   ├── QuotaExceeded           a configured limit would be passed
    │   ├── RateLimited             too many requests in too short a time
    │   ├── BodyTooLarge            the body is over its limit
    │   ├── UrlTooLong              the path and query are over their limit
    │   ├── LengthRequired          a body must be there, and its length announced
    │   ├── UnsupportedMediaType    the content type is none that is understood here
    │   └── ClientGone              the caller left before its request was complete
    ├── StorageError                infrastructure; the operator can act, callers may try again
    │   ├── StorageUnavailable      Redis does not answer, is loading, or refuses for now
    │   │   └── StorageTimeout      Redis did not answer in time; it may have been done
    │   ├── StorageFull             Redis is at its memory limit
    │   └── StoreIncompatible       the store was written by a newer release or for other settings
    ├── ServiceFailed               a service that a command talks to does not answer as it should
    └── ConfigurationError          a setting, file, port or program; one sentence that says what to do

The message of each is one complete sentence that names the offending field and value. HTTP statuses are
in `api/errors.py` alone. A failed delivery is no error but a value (`domain.outcome.AttemptResult`).
"""


class QstashCloneError(Exception):
    """Base of every error raised on purpose."""


class CallerError(QstashCloneError):
    """The request cannot be served as it was sent."""


class InvalidRequest(CallerError):
    """A part of the request is malformed; nothing was changed."""


class Unauthorized(CallerError):
    """The request carries no credential, or one that is not known."""


class Forbidden(CallerError):
    """The credential is known but does not allow this."""


class NotFound(CallerError):
    """The addressed object does not exist."""


class MethodNotAllowed(CallerError):
    """The path exists, but not with this method."""


class QuotaExceeded(CallerError):
    """A configured limit would be passed."""


class RateLimited(CallerError):
    """Too many requests in too short a time; the same one is welcome later."""


class BodyTooLarge(CallerError):
    """The body is over its limit."""


class UrlTooLong(CallerError):
    """The path and query are over their limit."""


class LengthRequired(CallerError):
    """A body must be there, and its length announced."""


class UnsupportedMediaType(CallerError):
    """The content type is none that is understood here."""


class ClientGone(CallerError):
    """The caller closed the connection before the request was complete."""


class StorageError(QstashCloneError):
    """The store could not do what was asked; whether it did may be unknown."""


class StorageUnavailable(StorageError):
    """Redis does not answer, or refuses for now."""


class StorageTimeout(StorageUnavailable):
    """Redis was reached and did not answer in time: what was asked may have been done."""


class StorageFull(StorageError):
    """Redis is at its memory limit and refuses writes that need more."""


class StoreIncompatible(StorageError):
    """The store was written by a newer release, or for other settings than these."""


class ServiceFailed(QstashCloneError):
    """A service that a command talks to cannot be reached, or does not answer as a QStash service does."""


class ConfigurationError(QstashCloneError):
    """A setting, file, port or program that the operator must change."""
