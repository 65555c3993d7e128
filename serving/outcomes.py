"""What an error of one endpoint means for a call that others could still answer.

| an endpoint's error                      | counts against it | the next one is asked |
|------------------------------------------|-------------------|-----------------------|
| Unavailable, DeadlineExceeded, BadAnswer | yes               | yes                   |
| Overloaded, ServingError                 | no                | yes                   |
| BadRequest: it has no such model         | no                | yes                   |
| any other BadRequest                     | no                | no: they would say so too |

Asking again is harmless: inference changes nothing. What does change something goes out through pools of one endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from tritonclient.utils import InferenceServerException

from penstock.errors import BadAnswer, BadRequest, DeadlineExceeded, Overloaded, ServingError, Unavailable

_TELLING: tuple[type[ServingError], ...] = (BadRequest, DeadlineExceeded, Overloaded, BadAnswer, Unavailable)
"""Of several errors the first of these is raised: what a server said tells more than that another one is away."""
_KINDS = {
    Unavailable: "unavailable",
    DeadlineExceeded: "deadline",
    Overloaded: "overloaded",
    BadRequest: "bad_request",
    BadAnswer: "bad_answer",
}


def silent(error: ServingError) -> bool:
    """Whether the endpoint gave no answer, or none that can be used."""
    return isinstance(error, (Unavailable, DeadlineExceeded, BadAnswer))


def final(error: ServingError) -> bool:
    """Whether no other endpoint would answer better."""
    cause = error.__cause__
    absent = isinstance(cause, InferenceServerException) and "NOT_FOUND" in str(cause.status())
    return isinstance(error, BadRequest) and not absent


def kind_of(error: ServingError) -> str:
    """The error's name in metrics."""
    return _KINDS.get(type(error), "failed")


def joined(errors: Sequence[ServingError], asked: Sequence[str]) -> ServingError:
    """One error for all that the endpoints said; none said anything: there was no time left."""
    if not errors:
        return DeadlineExceeded(f"no endpoint of {', '.join(asked)} could be asked in time: is the deadline too short?")
    if len(errors) == 1:
        return errors[0]
    kind = next((k for k in _TELLING if any(type(e) is k for e in errors)), ServingError)
    return kind("; ".join(map(str, errors)))
