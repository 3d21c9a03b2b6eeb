"""Destinations: resolved by the rules of `cp`, or refused before any download."""

from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import DestinationError, ModelfetchError, UnsafeNameError, UsageError
from modelfetch.volume.destination import Destination, locate_destination


def locate(dest: str, *, directory: bool = False, archive: bool = False, name: str = "m.bin") -> Destination:
    """Resolve DEST, by default for a single file `m.bin`."""
    return locate_destination(dest, name, directory=directory, archive=archive)


def test_destination_follows_the_rules_of_cp(tmp_path: Path) -> None:
    """A file goes into a directory or to a name; an archive's content into a directory, or beside its own name."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    at = str(tmp_path)

    assert locate(f"{at}/dir").path == tmp_path / "dir" / "m.bin"
    assert locate(f"{at}/link").path == tmp_path / "dir" / "m.bin"
    assert locate(f"{at}/new/").path == tmp_path / "new" / "m.bin"
    assert locate(f"{at}/new/x").path == tmp_path / "new" / "x"
    assert locate(f"{at}/new", directory=True) == Destination(tmp_path / "new", directory=True)
    assert locate(f"{at}/new", archive=True) == Destination(tmp_path / "new", directory=True)
    assert locate(f"{at}/new/m.tar.gz", archive=True) == Destination(tmp_path / "new", directory=True)
    assert locate(f"{at}/new/m.tar.gz/", archive=True) == Destination(tmp_path / "new" / "m.tar.gz", directory=True)


def test_tilde_is_expanded_only_for_a_known_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the user's home; `~` before an unknown user is an ordinary name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert locate("~/m").path == tmp_path / "m"
    assert locate("~nobody-of-this-name/m").path == tmp_path / "~nobody-of-this-name" / "m"


@pytest.mark.parametrize(
    ("dest", "options", "error", "message"),
    [
        ("file", {"directory": True}, DestinationError, "file where a directory"),
        ("file", {"archive": True}, DestinationError, "file where a directory"),
        ("file/", {}, DestinationError, "file where a directory"),
        ("dir/", {"name": "sub"}, DestinationError, "directory where a file"),
        ("n" * 236, {}, None, ""),
        ("n" * 237, {}, UnsafeNameError, "receipt"),
        ("n" * 256, {}, UnsafeNameError, "too long"),
        ("n" * 256, {"directory": True}, UnsafeNameError, "too long"),
        ("m\udcff", {}, UnsafeNameError, "UTF-8"),
        ("dir/", {"name": ".modelfetch-receipt"}, UsageError, "one of modelfetch's own"),
        ("dir/", {"name": ".modelfetch"}, UsageError, "one of modelfetch's own"),
        ("m.bin.modelfetch-receipt", {}, UsageError, "one of modelfetch's own"),
        (".modelfetch", {"directory": True}, UsageError, "one of modelfetch's own"),
        (".modelfetch/", {"archive": True}, UsageError, "one of modelfetch's own"),
        ("m.modelfetch-manifest", {}, UsageError, "one of modelfetch's own"),
        ("m.modelfetch.json", {}, UsageError, "one of modelfetch's own"),
        (".modelfetch/sub/m", {}, UsageError, "one of modelfetch's own"),
    ],
)
def test_impossible_destination_is_refused(
    tmp_path: Path, dest: str, options: Any, error: type[ModelfetchError] | None, message: str
) -> None:
    """A destination with a clash, a reserved name or a name too long is refused before any download."""
    (tmp_path / "file").touch()
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    if error is None:
        assert locate(f"{tmp_path}/{dest}", **options).path.name == dest
        return

    with pytest.raises(error, match=message):
        locate(f"{tmp_path}/{dest}", **options)
