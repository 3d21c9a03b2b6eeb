"""Options of S3 sources, from the environment."""

from typing import Any

import pytest

from modelfetch.sources import SourceOptions
from modelfetch.sources.s3.spec import read_s3_options


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"}, {"endpoint": "http://minio:9000"}),
        ({"S3_ENDPOINT": "minio:9000"}, {"endpoint": "https://minio:9000"}),
        ({"S3_ENDPOINT": "http://minio:9000"}, {"endpoint": "http://minio:9000"}),
        ({"S3_ENDPOINT": "minio", "AWS_ENDPOINT_URL": "http://x"}, {"endpoint": None}),
        ({"S3_ENDPOINT": "minio", "AWS_ENDPOINT_URL_S3": "http://x"}, {"endpoint": None}),
        ({"S3_USER_VIRTUAL_BUCKET": "True"}, {"virtual_host": True}),
        ({"S3_USER_VIRTUAL_BUCKET": ""}, {"virtual_host": False}),
        ({"AWS_REGION": "eu-west-1"}, {"region": "eu-west-1"}),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-1"}, {"region": None}),
        ({}, {"endpoint": None, "virtual_host": False, "region": None}),
    ],
)
def test_variables_of_kserve_and_the_sdk_give_the_options(environ: dict[str, str], expected: dict[str, Any]) -> None:
    """Variables unknown to botocore are read here; an empty variable counts as unset."""
    assert vars(read_s3_options(environ, SourceOptions())).items() >= expected.items()


def test_common_options_are_kept_beside_the_source_s_own() -> None:
    """Options of the command line reach the source together with the environment's."""
    options = read_s3_options({"AWS_REGION": "eu-west-1"}, SourceOptions(anonymous=True, max_listed=7))

    assert (options.anonymous, options.max_listed, options.region) == (True, 7, "eu-west-1")
