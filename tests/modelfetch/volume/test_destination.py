"""Where a model goes."""

from pathlib import Path
from typing import Any

import pytest

from modelfetch.errors import DestinationError, ModelfetchError, UnsafeNameError
from modelfetch.volume.destination import Destination, locate_destination


def place(dest: str, *, directory: bool = False, archive: bool = False, name: str = "m.bin") -> Destination:
    """Where a model goes."""
    return locate_destination(dest, name, directory=directory, archive=archive)


def test_a_model_goes_where_cp_would_put_it(tmp_path: Path) -> None:
    """A file into a directory or to a name; an archive's content into the directory, or beside its name."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    at = str(tmp_path)

    assert place(f"{at}/dir").path == tmp_path / "dir" / "m.bin"
    assert place(f"{at}/link").path == tmp_path / "dir" / "m.bin"
    assert place(f"{at}/new/").path == tmp_path / "new" / "m.bin"
    assert place(f"{at}/new/x").path == tmp_path / "new" / "x"
    assert place(f"{at}/new", directory=True) == Destination(tmp_path / "new", directory=True)
    assert place(f"{at}/new", archive=True) == Destination(tmp_path / "new", directory=True)
    assert place(f"{at}/new/m.tar.gz", archive=True) == Destination(tmp_path / "new", directory=True)
    assert place(f"{at}/new/m.tar.gz/", archive=True) == Destination(tmp_path / "new" / "m.tar.gz", directory=True)


def test_a_destination_may_be_in_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `~` of nobody's is a name like any other."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert place("~/m").path == tmp_path / "m"
    assert place("~nobody-of-this-name/m").path == tmp_path / "~nobody-of-this-name" / "m"


@pytest.mark.parametrize(
    ("dest", "options", "error", "said"),
    [
        ("file", {"directory": True}, DestinationError, "file where a directory"),
        ("file", {"archive": True}, DestinationError, "file where a directory"),
        ("file/", {}, DestinationError, "file where a directory"),
        ("dir/", {"name": "sub"}, DestinationError, "directory where a file"),
        ("n" * 239, {}, None, ""),
        ("n" * 240, {}, UnsafeNameError, "receipt"),
        ("n" * 256, {}, UnsafeNameError, "too long"),
        ("n" * 256, {"directory": True}, UnsafeNameError, "too long"),
        ("m\udcff", {}, UnsafeNameError, "UTF-8"),
        ("dir/", {"name": ".modelfetch.json"}, UnsafeNameError, "one of modelfetch's own"),
        ("dir/", {"name": ".modelfetch"}, UnsafeNameError, "one of modelfetch's own"),
        ("m.bin.modelfetch.json", {}, UnsafeNameError, "one of modelfetch's own"),
        (".modelfetch", {"directory": True}, UnsafeNameError, "one of modelfetch's own"),
        (".modelfetch/", {"archive": True}, UnsafeNameError, "one of modelfetch's own"),
    ],
)
def test_a_destination_that_cannot_be_is_refused(
    tmp_path: Path, dest: str, options: Any, error: type[ModelfetchError] | None, said: str
) -> None:
    """Before anything is fetched."""
    (tmp_path / "file").touch()
    (tmp_path / "dir" / "sub").mkdir(parents=True)
    if error is None:
        assert place(f"{tmp_path}/{dest}", **options).path.name == dest
        return

    with pytest.raises(error, match=said):
        place(f"{tmp_path}/{dest}", **options)
