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
def test_takes_names_that_name_the_path_they_give(path: str) -> None:
    """An unusual name is no unsafe one."""
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
def test_refuses_names_that_do_not(path: str, flaw: str) -> None:
    """The message is one printable line that shows the name, and the hint is the way round it."""
    with pytest.raises(UnsafeNameError) as caught:
        safe_paths.check_path(path)

    assert flaw in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400
    assert "--exclude" in caught.value.hint
    assert caught.value.code == 65


def test_hint_for_a_member_names_no_extract() -> None:
    """A member cannot be left out, an archive can be kept."""
    with pytest.raises(UnsafeNameError, match=r"member '\.\./a'") as caught:
        safe_paths.check_path("../a", "member")

    assert "--no-extract" in caught.value.hint


def test_takes_many_names_that_stand_beside_each_other() -> None:
    """Names that differ in case or Unicode form are for the file system to judge."""
    safe_paths.check_paths(["m/a", "m/b", "m.x", "M/a", "n", "é", "e\u0301"])


@pytest.mark.parametrize(
    "paths", [["m", "m"], ["m/a", "m/a/b"], ["m/a/b", "m/a"], ["m/a/b/c/d", "x", "m"], ["m", "m.x", "m/a"]]
)
def test_refuses_names_that_cannot_stand_beside_each_other(paths: list[str]) -> None:
    """A path is one file or one directory."""
    with pytest.raises(UnsafeNameError):
        safe_paths.check_paths(paths)


def test_vets_every_one_of_many() -> None:
    """One bad name is enough."""
    with pytest.raises(UnsafeNameError, match=r"'b/\.\./c'"):
        safe_paths.check_paths(["a", "b/../c"])


@pytest.mark.parametrize(
    ("path", "reserved"),
    [
        *((".modelfetch", True), (".modelfetch.json", True), (".modelfetch/lock", True), (".modelfetch-x/a", True)),
        *(("a/.modelfetch.json", False), ("model.modelfetch.json", False), ("modelfetch", False), ("", False)),
    ],
)
def test_knows_what_an_earlier_pull_left(path: str, reserved: bool) -> None:
    """Only at the top: further down such a name is somebody's file."""
    assert reserved == safe_paths.is_reserved_path(path)


@pytest.mark.parametrize("char", ["x", "\udcff", "\u202e", "\U000e0041", "'", "\\", "\0", "日"])
def test_a_name_is_shown_in_some_200_characters(char: str) -> None:
    """However many of its own it has, and although one may be shown as ten."""
    for count in (1, 20, 100, 199, 200, 201, 5000):
        shown = safe_paths.quote_path(char * count)
        assert len(shown) <= 210
        assert shown.isprintable()
