import pytest

from modelserve.engine.admission import AdmissionControl
from modelserve.errors import RequestError


def test_requests_beyond_the_limit_are_refused_with_503() -> None:
    """With every place taken a request is refused; a finished or failed request frees a place."""
    admission = AdmissionControl(max_requests=1)

    with (
        admission.admit_request(),
        pytest.raises(RequestError, match="too many requests at once") as refused,
        admission.admit_request(),
    ):
        pytest.fail("admitted beyond the limit")
    with pytest.raises(KeyError), admission.admit_request():
        raise KeyError
    with admission.admit_request():
        pass

    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
