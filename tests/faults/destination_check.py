"""Check what readers see at a destination: the old model, the new model or none, and what must not stand beside it."""

import hashlib
import os
import stat
from pathlib import Path

from modelfetch.errors import ModelfetchError, WrongBytesError
from modelfetch.verify import verify
from modelfetch.volume import receipt as receipts
from testkit import tree
from tests.faults.scenarios import ModelVersion, PreparedScenario, Scenario, State


def read_state(root: Path) -> State:
    """What stands below a directory, staging areas left out."""
    found = {}
    for here, folders, files in os.walk(root):
        if tree.STAGING in folders:
            folders.remove(tree.STAGING)
        for name in {*folders, *files} - {tree.STAGING}:  # which may be a link, and no directory
            path = Path(here, name)
            found[path.relative_to(root).as_posix()] = _describe_entry(path)
    return found


def _describe_entry(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    mode = f"{stat.S_IMODE(path.stat().st_mode):o}"
    if path.is_dir():
        return f"directory {mode}"
    if not path.is_file():
        return f"something else {mode}"
    return f"file {mode} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def check_destination(prepared: PreparedScenario, volume: Path) -> tuple[str, list[str]]:
    """What a reader sees at a destination at any moment: the old model, the new one or none, and what must not be."""
    scenario, present = prepared.scenario, read_state(volume)
    receipt_paths = [
        path for path, entry in present.items() if path.endswith(tree.RECEIPT) and entry.startswith("file")
    ]
    flaws = [flaw for path in receipt_paths for flaw in _check_receipt(volume / path)]
    flaws += [f"a stranger's {path} was touched" for path in scenario.foreign_files if path not in present]
    if f"m/{tree.RECEIPT}" not in receipt_paths and f"m{tree.RECEIPT}" not in receipt_paths:
        return "none", flaws + _check_without_receipt(prepared, present)
    without_receipts = {path: entry for path, entry in present.items() if not path.endswith(tree.RECEIPT)}
    for name, model in (("old", scenario.old), ("new", scenario.new)):
        if model and without_receipts == _expected_volume(scenario, model):
            return name, flaws
    return "a mixture", [
        *flaws,
        f"there is a receipt, and beside it {sorted(without_receipts)}, which is no version of the model",
    ]


def _check_receipt(receipt: Path) -> list[str]:
    """What a receipt says that is not so: by our own look, and by `modelfetch verify`."""
    flaws = []
    try:
        content = receipts.read_receipt(receipt)
    except WrongBytesError:
        return []  # nothing that anyone would believe
    for entry in content.files:
        path = receipt.parent / entry.path
        if not path.is_file() or tree.sha256(path.read_bytes()) != entry.sha256:
            flaws.append(f"{receipt.name} lists {entry.path}, which is not so")
    try:
        verify(
            receipt.parent if receipt.name == tree.RECEIPT else receipt.with_name(receipt.name[: -len(tree.RECEIPT)])
        )
    except ModelfetchError as error:
        flaws.append(error.message)
    return flaws


def _expected_volume(scenario: Scenario, model: ModelVersion) -> State:
    """What a volume with a model holds; receipts left out."""
    others = {path: f"file 644 {tree.sha256(data)}" for path, data in scenario.foreign_files.items()}
    above = {str(parent) for path in others for parent in Path(path).parents} - {"."}
    others |= dict.fromkeys(above, "directory 755")
    if scenario.kind == "file":
        return others | model.expected_state | scenario.other_entries
    model_state = {f"m/{path}": entry for path, entry in model.expected_state.items()}
    return others | {"m": "directory 755"} | model_state | scenario.other_entries


def _check_without_receipt(prepared: PreparedScenario, present: State) -> list[str]:
    """What must not be where there is no receipt."""
    scenario, initial = prepared.scenario, read_state(prepared.template)
    if not scenario.piecemeal:
        if scenario.old and prepared.can_exchange:
            return ["the old model is gone, and the new one is not there yet"]
        return [] if present == initial else [f"without a receipt there is {sorted(present)}"]
    owned = scenario.new.expected_state.keys() | (scenario.old.expected_state.keys() if scenario.old else set())
    known = initial.keys() | (owned if scenario.kind == "file" else {f"m/{path}" for path in owned})
    return [f"there is a foreign {path}" for path in present.keys() - known]


def check_finished_pull(prepared: PreparedScenario, volume: Path) -> list[str]:
    """What is wrong after a pull that says it succeeded."""
    name, flaws = check_destination(prepared, volume)
    if name != "new":
        flaws.append(f"after a pull that succeeded, the destination holds {name}")
    leftovers = [path for area in volume.rglob(tree.STAGING) for path in area.rglob("*")]
    orphans = [path for path in leftovers if path.is_dir() or path.suffix != ".lock" or path.lstat().st_size]
    found = [path for path in read_state(volume) if path.endswith(tree.RECEIPT)]
    if len(found) != 1:
        flaws.append(f"the receipts are {found}")
    return flaws + [f"{path.relative_to(volume)} is left" for path in orphans]
