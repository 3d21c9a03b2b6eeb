"""Checks of a destination as readers see it: the old model, the new model or none, and no foreign or stray file."""

import hashlib
import os
import stat
from pathlib import Path

from modelfetch.errors import ModelfetchError, WrongBytesError
from modelfetch.verify import verify
from modelfetch.volume import receipt as receipts
from testkit.file_tree import RECEIPT_NAME, STAGING_NAME, sha256_hex
from tests.faults.scenarios import ModelVersion, PreparedScenario, Scenario, State


def read_state(root: Path) -> State:
    """Return every entry below a directory, without staging areas."""
    found = {}
    for here, folders, files in os.walk(root):
        if STAGING_NAME in folders:
            folders.remove(STAGING_NAME)
        for name in {*folders, *files} - {STAGING_NAME}:  # may be a symlink instead of a directory
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
    """Return the model visible at a destination ("old", "new", "none" or "a mixture") and the flaws found."""
    scenario, present = prepared.scenario, read_state(volume)
    receipt_paths = [
        path for path, entry in present.items() if path.endswith(RECEIPT_NAME) and entry.startswith("file")
    ]
    flaws = [flaw for path in receipt_paths for flaw in _check_receipt(volume / path)]
    flaws += [f"the foreign file {path} was touched" for path in scenario.foreign_files if path not in present]
    if f"m/{RECEIPT_NAME}" not in receipt_paths and f"m{RECEIPT_NAME}" not in receipt_paths:
        return "none", flaws + _check_without_receipt(prepared, present)
    without_receipts = {path: entry for path, entry in present.items() if not path.endswith(RECEIPT_NAME)}
    for name, model in (("old", scenario.old), ("new", scenario.new)):
        if model and without_receipts == _expected_volume(scenario, model):
            return name, flaws
    return "a mixture", [
        *flaws,
        f"there is a receipt, and beside it {sorted(without_receipts)}, which is no version of the model",
    ]


def _check_receipt(receipt: Path) -> list[str]:
    """Return the false statements of a receipt, found by reading the files and by `modelfetch verify`."""
    flaws = []
    try:
        content = receipts.read_receipt(receipt)
    except WrongBytesError:
        return []  # an invalid receipt claims nothing
    for entry in content.files:
        path = receipt.parent / entry.path
        if not path.is_file() or sha256_hex(path.read_bytes()) != entry.sha256:
            flaws.append(f"{receipt.name} lists {entry.path}, which is not so")
    try:
        verify(
            receipt.parent if receipt.name == RECEIPT_NAME else receipt.with_name(receipt.name[: -len(RECEIPT_NAME)])
        )
    except ModelfetchError as error:
        flaws.append(error.message)
    return flaws


def _expected_volume(scenario: Scenario, model: ModelVersion) -> State:
    """Return the expected state of a volume with this model, without receipts."""
    others = {path: f"file 644 {sha256_hex(data)}" for path, data in scenario.foreign_files.items()}
    above = {str(parent) for path in others for parent in Path(path).parents} - {"."}
    others |= dict.fromkeys(above, "directory 755")
    if scenario.kind == "file":
        return others | model.expected_state | scenario.other_entries
    model_state = {f"m/{path}": entry for path, entry in model.expected_state.items()}
    return others | {"m": "directory 755"} | model_state | scenario.other_entries


def _check_without_receipt(prepared: PreparedScenario, present: State) -> list[str]:
    """Return the flaws of a destination without a receipt."""
    scenario, initial = prepared.scenario, read_state(prepared.template)
    if not scenario.piecemeal:
        if scenario.old and prepared.can_exchange:
            return ["the old model is gone, and the new one is not there yet"]
        return [] if present == initial else [f"without a receipt there is {sorted(present)}"]
    owned = scenario.new.expected_state.keys() | (scenario.old.expected_state.keys() if scenario.old else set())
    known = initial.keys() | (owned if scenario.kind == "file" else {f"m/{path}" for path in owned})
    return [f"there is a foreign {path}" for path in present.keys() - known]


def check_finished_pull(prepared: PreparedScenario, volume: Path) -> list[str]:
    """Return the flaws after a pull with exit code 0."""
    name, flaws = check_destination(prepared, volume)
    if name != "new":
        flaws.append(f"after a pull that succeeded, the destination holds {name}")
    leftovers = [path for area in volume.rglob(STAGING_NAME) for path in area.rglob("*")]
    orphans = [path for path in leftovers if path.is_dir() or path.suffix != ".lock" or path.lstat().st_size]
    found = [path for path in read_state(volume) if path.endswith(RECEIPT_NAME)]
    if len(found) != 1:
        flaws.append(f"the receipts are {found}")
    return flaws + [f"{path.relative_to(volume)} is left" for path in orphans]
