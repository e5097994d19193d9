"""Requests that schemathesis makes up from /openapi.json, sent to a running api: no defect, no undescribed answer."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from qstash_clone.settings import Settings
from tests.e2e.conftest import settings_for
from tests.support import documented
from tests.support.processes import System
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.fuzz
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

LEFT_OUT = {"POST /v2/flowControl//{action}"}
"""The client merges slashes, which makes another request of it."""
EXAMPLES = 12
"""Of each operation, the same in each run."""


@pytest.fixture(scope="module")
def api(redis_server: RedisServer) -> Iterator[System]:
    """An api without workers: what is stored stays."""
    with System(settings_for(redis_server.url, key_namespace="fuzz"), workers=0) as system:
        yield system


OPERATIONS = {
    operation.label: operation
    for operation in (
        result.ok()
        for result in schemathesis.openapi.from_dict(documented.build(Settings()).document).get_all_operations()
    )
}


@pytest.mark.parametrize("label", sorted(OPERATIONS.keys() - LEFT_OUT))
def test_every_answer_is_described(label: str, api: System) -> None:
    headers = {"Authorization": f"Bearer {api.settings.token}"}

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy())
    def call(case: Case) -> None:
        case.call_and_validate(base_url=api.url, headers=headers, checks=CHECKS)

    call()
