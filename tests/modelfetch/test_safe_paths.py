"""Safe paths: literal names pass, all others are refused with a printable message and a hint."""

import pytest

from modelfetch import safe_paths
from modelfetch.errors import UnsafeNameError


@pytest.mark.parametrize(
    "path",
    [
        *("model.joblib", "a/b/c", "...", "a..b/..c", ".hidden", "-rf", "with space", "ünï/日本", "a:b", "~", "%2e%2e"),
        *("x" * 255, "/".join(["d" * 100] * 40), "/".join("d" * 512)),
    ],
)
def test_unusual_but_literal_names_pass(path: str) -> None:
    """Dots, spaces, non-ASCII characters and longest names are safe."""
    safe_paths.check_path(path)


@pytest.mark.parametrize(
    ("path", "flaw"),
    [
        ("", "is empty"),
        ("/etc/passwd", "is absolute"),
        ("/", "is absolute"),
        ("a//b", "has an empty segment"),
        ("a/", "has an empty segment"),
        (".", "has a '.' segment"),
        ("a/./b", "has a '.' segment"),
        ("..", "has a '..' segment"),
        ("../a", "has a '..' segment"),
        ("a/../b", "has a '..' segment"),
        ("a/..", "has a '..' segment"),
        ("a\0b", "has a control character"),
        ("a\nb", "has a control character"),
        ("a\x1b[31m", "has a control character"),
        ("a\x7f", "has a control character"),
        ("a\x85", "has a control character"),
        ("a\\b", "has a backslash"),
        ("..\\a", "has a backslash"),
        ("a\udcff", "is not valid UTF-8"),
        ("x" * 256, "has a segment of more than 255 bytes"),
        ("ü" * 128, "has a segment of more than 255 bytes"),
        ("/".join(["d" * 250] * 17), "is longer than 4095 bytes"),
        ("/".join("d" * 513), "is nested deeper than 512"),
    ],
)
def test_unsafe_names_are_refused_with_a_hint(path: str, flaw: str) -> None:
    """The message is a printable line with the name, and the hint offers `--exclude`."""
    with pytest.raises(UnsafeNameError) as caught:
        safe_paths.check_path(path)

    assert flaw in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400
    assert "--exclude" in caught.value.hint
    assert caught.value.code == 65


def test_hint_for_a_member_offers_no_extract() -> None:
    """A member cannot be excluded, but the archive can be kept."""
    with pytest.raises(UnsafeNameError, match=r"member '\.\./a'") as caught:
        safe_paths.check_path("../a", "member")

    assert "--no-extract" in caught.value.hint


def test_names_that_differ_only_in_case_or_unicode_form_pass() -> None:
    """The file system decides whether similar names clash."""
    safe_paths.check_paths(["m/a", "m/b", "m.x", "M/a", "n", "é", "e\u0301"])


@pytest.mark.parametrize(
    "paths", [["m", "m"], ["m/a", "m/a/b"], ["m/a/b", "m/a"], ["m/a/b/c/d", "x", "m"], ["m", "m.x", "m/a"]]
)
def test_names_that_clash_are_refused(paths: list[str]) -> None:
    """A path is either a file or a directory, and occurs once."""
    with pytest.raises(UnsafeNameError):
        safe_paths.check_paths(paths)


def test_single_unsafe_name_refuses_the_whole_list() -> None:
    """Every path of the list is checked."""
    with pytest.raises(UnsafeNameError, match=r"'b/\.\./c'"):
        safe_paths.check_paths(["a", "b/../c"])


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        *((".modelfetch", True), (".modelfetch-receipt", True), (".modelfetch/lock", True), (".modelfetch-x/a", True)),
        *(("a/.modelfetch-receipt", True), ("model.modelfetch-receipt", True), ("a/.modelfetch/b", True)),
        *(("a/m.modelfetch.json", True), ("m.modelfetch-manifest.json", True), ("a.modelfetch-manifest/b", True)),
        *((".ModelFetch-Receipt", True), ("a/m.MODELFETCH.JSON", True)),
        *(("modelfetch", False), ("", False), ("my.modelfetch", False), ("a.modelfetch.jsonl", False)),
    ],
)
def test_reserved_names_are_recognised_at_every_depth_and_in_any_case(path: str, reserved: bool) -> None:
    """New and old names of receipts and manifests, and staging areas."""
    assert reserved == safe_paths.is_reserved_path(path)


@pytest.mark.parametrize("char", ["x", "\udcff", "\u202e", "\U000e0041", "'", "\\", "\0", "日"])
def test_quoted_name_has_at_most_some_200_characters(char: str) -> None:
    """The limit holds for any length, and for characters that repr shows as ten."""
    for count in (1, 20, 100, 199, 200, 201, 5000):
        shown = safe_paths.quote_path(char * count)
        assert len(shown) <= 210
        assert shown.isprintable()
