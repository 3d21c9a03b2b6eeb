"""Redaction: known secrets, and text that looks like a secret, reach no output."""

import json
from pathlib import Path

import pytest

from modelfetch.cli.console import Console
from modelfetch.cli.failure_report import report_error, write_termination_message
from modelfetch.cli.redaction import Redactor, mask_credentials
from modelfetch.errors import NotFoundError

SIGNED = "https://b.s3.amazonaws.com/k?X-Amz-Credential=AKIA%2Fx&X-Amz-Signature=s3cr3t"


@pytest.mark.parametrize(
    "text",
    [
        SIGNED,
        f"Max retries exceeded with url: {SIGNED} (caused by x)",
        f'"{SIGNED}"',
        "https://storage.googleapis.com/b/o?X-Goog-Signature=s3cr3t&X-Goog-Date=1",
        "https://h/m?AWSAccessKeyId=x&Signature=s3cr3t",
        "https://h/m?sig=s3cr3t",
        "https://h/m?token=s3cr3t",
        "https://h/m?access_token=s3cr3t",
        "Authorization: Bearer s3cr3t",
        "authorization: basic s3cr3t",
        "{'Authorization': 'Bearer s3cr3t'}",
    ],
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_lookalikes_of_secrets_reach_no_output(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, quote: str
) -> None:
    """Log, failure report and termination message show `***` instead, and stay valid JSON."""
    console = Console()
    message = f"{quote}{text}{quote} failed"
    report = report_error(NotFoundError(message, hint=message), message)
    console.log_info(message, fact=message)
    console.report_failure(report)
    write_termination_message(tmp_path / "log", report, Redactor())

    reported = [*map(json.loads, capsys.readouterr().err.splitlines()), json.loads((tmp_path / "log").read_text())]

    assert "s3cr3t" not in json.dumps(reported)
    assert all(line["message"].endswith(" failed") for line in reported)
    assert "***" in reported[0]["message"]


@pytest.mark.parametrize("form", ["p%40ss%20word", 'p@ss word"', "p@ss word"])
def test_registered_secret_is_removed_in_every_form(form: str) -> None:
    """A registered secret is removed as it is, quoted for a URL, and inside JSON."""
    redactor = Redactor(["p@ss word"])

    assert redactor.redact(f"x {form} y").startswith("x ***")
    assert "word" not in redactor.dump_json({"text": form})


def test_redactors_do_not_share_secrets() -> None:
    """Secrets of one command are unknown to the next command's redactor."""
    Redactor().hide(["long secret"])

    assert Redactor().redact("long secret") == "long secret"


def test_short_secret_is_not_removed() -> None:
    """A secret of fewer than six characters occurs by chance, and would cripple every message."""
    assert Redactor(["abc"]).redact("abcdef") == "abcdef"


def test_user_names_and_queries_of_addresses_are_masked() -> None:
    """A proxy without a scheme is masked as well; a bucket's key may hold `@` and `?`."""
    assert mask_credentials("me:pw@proxy:3128", proxy=True) == "***@proxy:3128"
    assert mask_credentials("https://h/m?sig=1") == "https://h/m?***"
    assert mask_credentials("gs://b/a@b?c") == "gs://b/a@b?c"


KEY = "-----BEGIN PRIVATE KEY-----\ns3cr3t\\s3cr3t\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"private_key": KEY, "type": "x"}),
        repr(json.dumps({"private_key": KEY})),
        json.dumps(json.dumps({"private_key": KEY})),
        json.dumps({"client_secret": "abc\\s3cr3t"}),
        "token=abc\\s3cr3t&x=1",
        "Bearer abc\\s3cr3t",
    ],
)
def test_backslash_does_not_end_a_secret(text: str) -> None:
    """A key in JSON, in its repr or in JSON within JSON is masked to its end."""
    assert "s3cr3t" not in Redactor().redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://h/m?Policy=s3cr3t&Key-Pair-Id=s3cr3t",
        "redirected to 'https://h/m?anything=s3cr3t'",
        "Max retries exceeded with url: /b/k?anything=s3cr3t (Caused by x)",
    ],
)
def test_query_of_an_address_is_masked_whatever_its_names(text: str) -> None:
    """A redirect names the parameters of its signature as it likes."""
    assert "s3cr3t" not in Redactor().redact(text)


def test_pinned_addresses_stay_readable() -> None:
    """The version id of an S3 address is no secret, but the pin to put into a ConfigMap."""
    text = "s3://b/k?versionId=3sL4kqtJlcpXroDTDmJ and gs://b/o#17"

    assert Redactor().redact(text) == text
