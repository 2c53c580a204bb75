"""The systemd units: accepted by systemd without a word, sealed as far as a gateway can be, and true to the promises."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
DRAIN_SECONDS = 600  # reliability.md, promise 8


def check_units(folder: Path) -> tuple[int, str]:
    """Exit code and words of scripts/check-units."""
    done = subprocess.run([ROOT / "scripts" / "check-units", folder], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("systemd-analyze is not here")
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the units to spoil."""
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=["="])
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / "ds2d.service")
    return parser["Service"]


def test_the_units_are_accepted_and_sealed() -> None:
    code, words = check_units(UNITS)
    assert code == 0, words


@pytest.mark.parametrize(
    ("unit", "line", "instead", "complaint"),
    [
        ("ds2d.service", "WatchdogSec=30", "WatchdgSec=30", "Unknown key"),
        ("ds2d.socket", "NoDelay=yes", "NoDelay=perhaps", "Failed to parse"),
        ("ds2d.service", "PrivateUsers=yes", "", "exposure"),
    ],
)
def test_a_spoilt_unit_is_refused(folder: Path, unit: str, line: str, instead: str, complaint: str) -> None:
    text = (folder / unit).read_text()
    assert line in text
    (folder / unit).write_text(text.replace(line, instead))
    code, words = check_units(folder)
    assert code == 1
    assert complaint in words


def test_systemd_waits_for_readiness_and_for_signs_of_life(service: configparser.SectionProxy) -> None:
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0


def test_a_stop_leaves_time_to_finish_every_answer(service: configparser.SectionProxy) -> None:
    assert int(service["TimeoutStopSec"]) > DRAIN_SECONDS


def test_config_lies_where_the_daemon_may_write(service: configparser.SectionProxy) -> None:
    assert service["DynamicUser"] == "yes"
    assert f"DS2D_CONFIG=%S/{service['StateDirectory']}/config.json" in service["Environment"]
    assert (service["StateDirectoryMode"], service["UMask"]) == ("0700", "0077")
