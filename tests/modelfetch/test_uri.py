"""What a source's address says, taken apart without asking anyone."""

import os
from pathlib import Path

import pytest

from modelfetch.errors import UsageError
from modelfetch.sources import mask_address, parse_uri
from modelfetch.sources.gcs.spec import pin_gcs_uri
from modelfetch.sources.s3.spec import pin_s3_uri
from modelfetch.uri import ModelURI


@pytest.mark.parametrize(
    ("text", "scheme", "bucket", "key", "version"),
    [
        ("s3://b/k", "s3", "b", "k", None),
        ("s3://b/a/b.bin", "s3", "b", "a/b.bin", None),
        ("S3://b/K", "s3", "b", "K", None),
        ("s3://b", "s3", "b", "", None),
        ("s3://b/", "s3", "b", "", None),
        ("s3://b/dir/", "s3", "b", "dir/", None),
        ("s3://b//k", "s3", "b", "/k", None),
        ("s3://b/k?versionId=3sL4kqtJ.rm_-", "s3", "b", "k", "3sL4kqtJ.rm_-"),
        ("s3://b/k?versionId=null", "s3", "b", "k", "null"),
        ("s3://b/k?a=1?versionId=x", "s3", "b", "k?a=1", "x"),
        ("s3://b/k?other=1", "s3", "b", "k?other=1", None),
        ("s3://b/k?versionId=a&b", "s3", "b", "k?versionId=a&b", None),
        ("s3://b/k#12", "s3", "b", "k#12", None),
        ("s3://b/a%20b", "s3", "b", "a%20b", None),
        ("gs://b/o", "gs", "b", "o", None),
        ("gcs://b/o", "gs", "b", "o", None),
        ("gs://b/o#1700000000000000", "gs", "b", "o", "1700000000000000"),
        ("gs://b/o#v2", "gs", "b", "o#v2", None),
        ("gs://b/o#", "gs", "b", "o#", None),
        ("gs://b/o#1#2", "gs", "b", "o#1", "2"),
        ("gs://b/o#٣", "gs", "b", "o#٣", None),
        ("gs://b/o#1\n", "gs", "b", "o#1\n", None),
        ("gs://b/o?versionId=1", "gs", "b", "o?versionId=1", None),
    ],
)
def test_bucket_address_is_split_into_bucket_key_and_version(
    text: str, scheme: str, bucket: str, key: str, version: str | None
) -> None:
    """Only an all-digit fragment is a generation, only a last `?versionId=` a version; all else is the name."""
    assert parse_uri(text) == ModelURI(scheme, bucket, key, version)


@pytest.mark.parametrize("text", ["s3://b/k?versionId=x", "s3://b/k", "gs://b/o#12", "gs://b/o#v2", "gs://b/d/"])
def test_pinned_address_survives_a_round_trip(text: str) -> None:
    """`push` prints such addresses for the ConfigMap."""
    uri = parse_uri(text)

    pin = {"s3": pin_s3_uri, "gs": pin_gcs_uri}[uri.scheme]

    assert (pin(uri, uri.version) if uri.version else str(uri)) == text
    assert parse_uri(str(uri)).version is None


@pytest.mark.parametrize(
    ("text", "directory", "name"),
    [
        ("s3://b", True, ""),
        ("s3://b/", True, ""),
        ("gs://b/d/", True, "d"),
        ("gs://b/d/o.bin", False, "o.bin"),
        ("https://h/d/m.bin?q=/x/", False, "m.bin"),
        ("file:///models/", True, "models"),
        ("/models/m.bin", False, "m.bin"),
    ],
)
def test_address_with_a_slash_at_the_end_means_a_directory(text: str, directory: bool, name: str) -> None:
    """The address of a whole bucket does, too."""
    uri = parse_uri(text)

    assert (uri.is_directory, uri.name) == (directory, name)


@pytest.mark.parametrize(
    ("text", "host", "key", "shown"),
    [
        ("https://Example.org/m.bin", "example.org", "m.bin", "https://example.org/m.bin"),
        ("HTTP://h:8080/a/m.bin", "h:8080", "a/m.bin", "http://h:8080/a/m.bin"),
        ("https://[::1]:9000/m.bin", "[::1]:9000", "m.bin", "https://[::1]:9000/m.bin"),
        ("https://[2001:db8::1]/m.bin", "[2001:db8::1]", "m.bin", "https://[2001:db8::1]/m.bin"),
        ("https://h/a%20b.bin", "h", "a%20b.bin", "https://h/a%20b.bin"),
    ],
)
def test_url_is_split_into_host_and_path(text: str, host: str, key: str, shown: str) -> None:
    """Ports and IPv6 addresses are read as well."""
    uri = parse_uri(text)

    assert (uri.bucket, uri.key, str(uri)) == (host, key, shown)
    assert parse_uri(shown).bucket == host


def test_query_of_a_signed_url_is_not_shown() -> None:
    """Requests carry the query, messages do not."""
    uri = parse_uri("https://h/m.bin?X-Amz-Signature=secret#part")

    assert uri.url == "https://h/m.bin?X-Amz-Signature=secret"
    assert str(uri) == "https://h/m.bin"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///models/m.bin", "/models/m.bin"),
        ("file://localhost/models/m.bin", "/models/m.bin"),
        ("file:///models/", "/models/"),
        ("file:///a%20b/%C3%BC", "/a b/ü"),
        ("/a%20b", "/a%20b"),
        ("/models/v1/", "/models/v1/"),
        ("/o#12", "/o#12"),
        ("/", "/"),
        ("/~/x", "/~/x"),
    ],
)
def test_plain_path_and_file_url_give_an_absolute_path(text: str, path: str) -> None:
    """File URLs are unquoted, plain paths are not."""
    assert parse_uri(text) == ModelURI("file", "", path)


def test_relative_and_home_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `~` before an unknown user is an ordinary name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")

    assert parse_uri("m.bin").key == f"{tmp_path}/m.bin"
    assert parse_uri("~/m.bin").key == "/home/me/m.bin"
    assert parse_uri("~nobody-of-this-name/m.bin").key == f"{tmp_path}/~nobody-of-this-name/m.bin"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("az://c/b", "az://"),
        ("hf://org/model", "hf://"),
        ("s3://", "No bucket"),
        ("s3:///k", "No bucket"),
        ("gs:///o", "No bucket"),
        ("s3://b/k?versionId=", "Empty versionId"),
        ("s3://b/d/?versionId=x", "not a directory"),
        ("gs://b/d/#12", "not a directory"),
        ("gs://b#12", "not a directory"),
        ("https://", "No host"),
        ("https:///m.bin", "No host"),
        ("https://h/", "ends with a slash"),
        ("https://h/d/", "ends with a slash"),
        ("https://h", "ends with a slash"),
        ("https://h:port/m.bin", "Not a URL"),
        ("https://[::1/m.bin", "Not a URL"),
        ("https://me:secret@h/m.bin", "credentials"),
        ("https://token@h/m.bin", "credentials"),
        ("file://server/share/m.bin", "names a host"),
        ("file://", "names a host"),
        ("/m\0.bin", "NUL"),
        ("file:///m%00.bin", "NUL"),
        ("/m\udcff.bin", "UTF-8"),
        ("file:///m%ff.bin", "UTF-8"),
    ],
)
def test_invalid_address_is_refused_with_a_hint(text: str, said: str) -> None:
    """Credentials in a URL are refused without repeating them."""
    with pytest.raises(UsageError, match=said) as caught:
        parse_uri(text)

    assert caught.value.hint
    assert "secret" not in caught.value.message


def test_path_outside_utf8_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receipt could not name the files."""
    odd = tmp_path / os.fsdecode(b"\xff")
    odd.mkdir()
    monkeypatch.chdir(odd)
    with pytest.raises(UsageError, match="UTF-8"):
        parse_uri("m.bin")

    odd.rmdir()
    with pytest.raises(UsageError, match="is gone"):
        parse_uri("m.bin")
    monkeypatch.chdir("/")


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/ap/a/b",
            "arn:aws:s3:eu-west-1:123456789012:accesspoint/ap",
            "a/b",
        ),
        (
            "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint:ap/m",
            "arn:aws:s3:eu-west-1:123456789012:accesspoint:ap",
            "m",
        ),
        ("s3://arn:aws:s3::123456789012:accesspoint/x.mrap/", "arn:aws:s3::123456789012:accesspoint/x.mrap", ""),
    ],
)
def test_access_point_arn_is_read_as_the_bucket(text: str, bucket: str, key: str) -> None:
    """The name of an access point may hold a slash."""
    uri = parse_uri(text)

    assert (uri.bucket, uri.key) == (bucket, key)
    assert parse_uri(str(uri)) == uri


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_credentials_in_a_bucket_address_are_refused(scheme: str) -> None:
    """Addresses are shown in every log."""
    with pytest.raises(UsageError, match="holds credentials") as caught:
        parse_uri(f"{scheme}://me:s3cr3t@bucket/m")

    assert "s3cr3t" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/m", "https://h/m"),
        ("https://me:p@h/m?sig=x", "https://***@h/m?***"),
        ("https://me:p/w@h:port/m", "https://***@h:port/m"),
        ("ftp://me:p@h/m?x=y", "ftp://***@h/m?***"),
        ("s3://b/k@1?versionId=v", "s3://b/k@1?versionId=v"),
        ("s3://me:p@b/k", "s3://***@b/k"),
        ("gs://b/k#1", "gs://b/k#1"),
        ("/a@b?c", "/a@b?c"),
        ("file:///a@b?c", "file:///a@b?c"),
    ],
)
def test_masked_address_shows_no_secret(text: str, shown: str) -> None:
    """For valid and invalid addresses; versions and paths stay readable."""
    assert mask_address(text) == shown
