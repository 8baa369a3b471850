"""What a use case may answer instead of its result. The HTTP status of each stands in ``web/errors.py`` alone."""


class FlowFault(Exception):
    """Something that the caller must hear about; ``detail`` says what happened and what to do."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Invalid(FlowFault):
    """The request does not make sense, or names something that does not exist."""


class InvalidAt(Invalid):
    """The request breaks a rule at one place; ``path`` names it, such as ``alert.info[0].urgency``."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(detail)
        self.path = path


class Unreadable(FlowFault):
    """The bytes of the request are not what they say they are."""


class TooLarge(FlowFault):
    """The request has more bytes than this node takes."""


class NotFound(FlowFault):
    """What was asked for is not here, or not for this user to see."""


class Conflict(FlowFault):
    """The request does not fit what is there now."""


class Forbidden(FlowFault):
    """This user, or this sensor, may not do that."""


class Unavailable(FlowFault):
    """This node cannot do it now; nothing was accepted, and trying again is right."""


class Unauthenticated(FlowFault):
    """Nobody vouches for who this is: a wrong password, a wrong or expired token, a wrong signature."""


class StaleWebhook(Unauthenticated):
    """A webhook message whose signed time is too far from ours; it may be a replay."""


class RepeatedWebhook(Conflict):
    """A webhook message that has become an alert already."""

    def __init__(self, detail: str, alert_id: str) -> None:
        super().__init__(detail)
        self.alert_id = alert_id


class TooMany(FlowFault):
    """More requests than are allowed in a minute; nothing was done."""


class UnsupportedMedia(FlowFault):
    """The request's body is of a kind that is not taken here."""
