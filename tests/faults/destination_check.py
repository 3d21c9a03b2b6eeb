"""Check what readers see at a destination: the old model, the new model or none, and what must not stand beside it."""

import hashlib
import os
import stat
from pathlib import Path

from modelfetch.errors import ModelfetchError, WrongBytesError
from modelfetch.verify import verify
from modelfetch.volume import receipt as receipts
from testkit import tree
from tests.faults.scenarios import Model, Prepared, Scene, State


def state(root: Path) -> State:
    """What stands below a directory, staging areas left out."""
    found = {}
    for here, folders, files in os.walk(root):
        if tree.STAGING in folders:
            folders.remove(tree.STAGING)
        for name in {*folders, *files} - {tree.STAGING}:  # which may be a link, and no directory
            path = Path(here, name)
            found[path.relative_to(root).as_posix()] = _entry(path)
    return found


def _entry(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
    if path.is_dir():
        return f"directory {mode}"
    if not path.is_file():
        return f"something else {mode}"
    return f"file {mode} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def seen(prepared: Prepared, volume: Path) -> tuple[str, list[str]]:
    """What a reader sees at a destination at any moment: the old model, the new one or none, and what must not be."""
    scene, there = prepared.scene, state(volume)
    said = [path for path, entry in there.items() if path.endswith(tree.RECEIPT) and entry.startswith("file")]
    flaws = [flaw for path in said for flaw in _untrue(volume / path)]
    flaws += [f"a stranger's {path} was touched" for path in scene.strangers if path not in there]
    if f"m/{tree.RECEIPT}" not in said and f"m{tree.RECEIPT}" not in said:
        return "none", flaws + _of_nothing(prepared, there)
    bare = {path: entry for path, entry in there.items() if not path.endswith(tree.RECEIPT)}
    for name, model in (("old", scene.old), ("new", scene.new)):
        if model and bare == _whole(scene, model):
            return name, flaws
    return "a mixture", [*flaws, f"there is a receipt, and beside it {sorted(bare)}, which is no version of the model"]


def _untrue(receipt: Path) -> list[str]:
    """What a receipt says that is not so: by our own look, and by `modelfetch verify`."""
    wrong = []
    try:
        said = receipts.read_receipt(receipt)
    except WrongBytesError:
        return []  # nothing that anyone would believe
    for entry in said.files:
        path = receipt.parent / entry.path
        if not path.is_file() or tree.sha256(path.read_bytes()) != entry.sha256:
            wrong.append(f"{receipt.name} lists {entry.path}, which is not so")
    try:
        verify(
            receipt.parent if receipt.name == tree.RECEIPT else receipt.with_name(receipt.name[: -len(tree.RECEIPT)])
        )
    except ModelfetchError as error:
        wrong.append(error.message)
    return wrong


def _whole(scene: Scene, model: Model) -> State:
    """What a volume with a model holds; receipts left out."""
    others = {path: f"file 644 {tree.sha256(data)}" for path, data in scene.strangers.items()}
    above = {str(parent) for path in others for parent in Path(path).parents} - {"."}
    others |= dict.fromkeys(above, "directory 755")
    if scene.kind == "file":
        return others | model.state | scene.others
    model_state = {f"m/{path}": entry for path, entry in model.state.items()}
    return others | {"m": "directory 755"} | model_state | scene.others


def _of_nothing(prepared: Prepared, there: State) -> list[str]:
    """What must not be where there is no receipt."""
    scene, begin = prepared.scene, state(prepared.template)
    if not scene.piecemeal:
        if scene.old and prepared.exchanging:
            return ["the old model is gone, and the new one is not there yet"]
        return [] if there == begin else [f"without a receipt there is {sorted(there)}"]
    ours = scene.new.state.keys() | (scene.old.state.keys() if scene.old else set())
    known = begin.keys() | (ours if scene.kind == "file" else {f"m/{path}" for path in ours})
    return [f"there is a foreign {path}" for path in there.keys() - known]


def at_the_end(prepared: Prepared, volume: Path) -> list[str]:
    """What is wrong after a pull that says it succeeded."""
    name, flaws = seen(prepared, volume)
    if name != "new":
        flaws.append(f"after a pull that succeeded, the destination holds {name}")
    left = [path for area in volume.rglob(tree.STAGING) for path in area.rglob("*")]
    orphans = [path for path in left if path.is_dir() or path.suffix != ".lock" or path.lstat().st_size]
    found = [path for path in state(volume) if path.endswith(tree.RECEIPT)]
    if len(found) != 1:
        flaws.append(f"the receipts are {found}")
    return flaws + [f"{path.relative_to(volume)} is left" for path in orphans]
