"""URL groups, `topics` on the wire."""

from typing import Annotated, Final, NotRequired, TypedDict

from msgspec import Meta

from qstash_clone.api.openapi.description import (
    DONE,
    Answer,
    Body,
    HeaderMap,
    Ms,
    Operation,
    Operations,
    path_parameter,
)
from qstash_clone.domain.url_group_changes import MAX_ENDPOINT_NAME_CHARACTERS, MAX_ITEMS

_Name = Annotated[str, Meta(max_length=MAX_ENDPOINT_NAME_CHARACTERS)] | None


class Endpoint(TypedDict):
    """One endpoint of a URL group."""

    url: str
    name: NotRequired[str]


class UrlGroup(TypedDict):
    """A named list of endpoints."""

    name: str
    createdAt: Ms
    updatedAt: Ms
    endpoints: Annotated[list[Endpoint], Meta(min_length=1)]
    headers: NotRequired[HeaderMap]


class AddedEndpoint(TypedDict):
    """An endpoint to be added."""

    url: str
    name: NotRequired[_Name]


class AddedEndpoints(TypedDict):
    """Endpoints to be added; all or none."""

    endpoints: Annotated[list[AddedEndpoint], Meta(min_length=1, max_length=MAX_ITEMS)]


class RemovedEndpoint(TypedDict):
    """Endpoints that are equal to this in everything that is given."""

    url: NotRequired[str | None]
    name: NotRequired[_Name]


class RemovedEndpoints(TypedDict):
    """Endpoints to be removed."""

    endpoints: Annotated[list[RemovedEndpoint], Meta(min_length=1, max_length=MAX_ITEMS)]


class DefaultHeaders(TypedDict):
    """What publishes to a group have by default; replaces all that was set before."""

    headers: Annotated[
        dict[str, str | list[str]], Meta(description="`Upstash-*` headers of a publish, and `Content-Type`.")
    ]


_NAME: Final = path_parameter("name", "1 to 256 letters, digits, `.`, `_` and `-`.")

OPERATIONS: Final[Operations] = {
    "GET /v2/topics": Operation(
        id="listUrlGroups",
        tag="URL groups",
        summary="All URL groups, in the order of their creation",
        answers={200: Answer(text="All of them.", shape=list[UrlGroup])},
    ),
    "GET /v2/topics/{name}": Operation(
        id="getUrlGroup",
        tag="URL groups",
        summary="One URL group",
        parameters=(_NAME,),
        answers={200: Answer(text="The group.", shape=UrlGroup)},
        errors=(404,),
    ),
    "PATCH /v2/topics/{name}": Operation(
        id="setDefaultHeaders",
        tag="URL groups",
        summary="Set what publishes to the group have by default",
        parameters=(_NAME,),
        body=Body(text="The default headers.", shape=DefaultHeaders, is_required=True),
        answers={200: DONE},
        errors=(400, 404, 412, 413),
    ),
    "DELETE /v2/topics/{name}": Operation(
        id="deleteUrlGroup",
        tag="URL groups",
        summary="Forget a group, which need not exist; its messages are delivered all the same",
        parameters=(_NAME,),
        answers={200: DONE},
    ),
    "POST /v2/topics/{name}/endpoints": Operation(
        id="addEndpoints",
        tag="URL groups",
        summary="Add endpoints to a group, which is made if there is none, or update those that it has",
        parameters=(_NAME,),
        body=Body(text="The endpoints.", shape=AddedEndpoints, is_required=True),
        answers={200: DONE},
        errors=(400, 412, 413),
    ),
    "DELETE /v2/topics/{name}/endpoints": Operation(
        id="removeEndpoints",
        tag="URL groups",
        summary="Remove endpoints; without any left, the group is deleted",
        parameters=(_NAME,),
        body=Body(text="Each is described by its URL, its name or both.", shape=RemovedEndpoints, is_required=True),
        answers={200: DONE},
        errors=(400, 404, 413),
    ),
}
