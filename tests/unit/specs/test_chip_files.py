"""A chip's file: what is wrong is named with its path inside the file, by code."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import CHIPS, FOLDERS_VARIABLE, chip, chip_names
from windtunnel.specs.files import FILE_NAME
from windtunnel.specs.schema import Trust

NUMBER = '{ value = 1e15, unit = "FLOP/s", source = "page", date = "2026", trust = "vendor" }'


def folder(tmp_path: Path, text: str, name: str = "my-card") -> Path:
    place = tmp_path / name
    place.mkdir(parents=True, exist_ok=True)
    (place / FILE_NAME).write_text(text, encoding="utf-8")
    return place


def based(extra: str) -> str:
    return f'based_on = "h100-sxm"\ntitle = "T"\ndevice_name = "T"\n{extra}\n'


def number(**changes: str | None) -> str:
    """The TOML of one peak, with keys replaced or left out."""
    keys = {"value": "2e15", "unit": '"FLOP/s"', "source": '"page"', "date": '"2026"', "trust": '"vendor"'}
    stated = {**keys, **changes}
    return "{ " + ", ".join(f"{key} = {value}" for key, value in stated.items() if value is not None) + " }"


CASES = {
    "number without source": (
        f"[peak_flops]\nfp8 = {number(source=None)}",
        "E103",
        "`peak_flops.fp8.source` is missing",
    ),
    "number without date": (
        f"[peak_flops]\nfp8 = {number(date=None)}",
        "E103",
        "`peak_flops.fp8.date` is missing",
    ),
    "number without trust": (
        f"[peak_flops]\nfp8 = {number(trust=None)}",
        "E103",
        "`peak_flops.fp8.trust` is missing",
    ),
    "number without unit": (
        f"[peak_flops]\nfp8 = {number(unit=None)}",
        "E103",
        "`peak_flops.fp8.unit` is missing",
    ),
    "number without value": (
        f"[peak_flops]\nfp8 = {number(value=None)}",
        "E103",
        "`peak_flops.fp8.value` is missing",
    ),
    "empty source": (f"[peak_flops]\nfp8 = {number(source=repr('  '))}", "E104", "`peak_flops.fp8.source`"),
    "assumed without note": (
        f"[peak_flops]\nfp8 = {number(trust=repr('assumed'))}",
        "E103",
        "`peak_flops.fp8.note`",
    ),
    "unknown trust": (f"[peak_flops]\nfp8 = {number(trust=repr('sure'))}", "E104", "`peak_flops.fp8.trust`"),
    "date in words": (f"[peak_flops]\nfp8 = {number(date=repr('spring'))}", "E104", "`peak_flops.fp8.date`"),
    "wrong unit": (
        f"[peak_flops]\nfp8 = {number(unit=repr('TFLOP/s'))}",
        "E105",
        "`peak_flops.fp8.unit` is `TFLOP/s`",
    ),
    "unit of another kind": (f"tdp_w = {number()}", "E105", "`tdp_w.unit`"),
    "negative": (f"[peak_flops]\nfp8 = {number(value='-1')}", "E106", "`peak_flops.fp8.value` is -1"),
    "zero": (f"[peak_flops]\nfp8 = {number(value='0')}", "E106", "above zero"),
    "infinite": (f"[peak_flops]\nfp8 = {number(value='inf')}", "E106", "finite"),
    "not a number": (f"[peak_flops]\nfp8 = {number(value='nan')}", "E106", "finite"),
    "beyond all floats": (f"[peak_flops]\nfp8 = {number(value='1' + '0' * 400)}", "E106", "finite"),
    "text for a number": (
        f"[peak_flops]\nfp8 = {number(value=repr('fast'))}",
        "E104",
        "`peak_flops.fp8.value`",
    ),
    "truth for a number": (f"[peak_flops]\nfp8 = {number(value='true')}", "E104", "`peak_flops.fp8.value`"),
    "bare number": ("tdp_w = 700", "E104", "`tdp_w` is not a table"),
    "misspelt precision": (f"[peak_flops]\nfp9 = {NUMBER}", "E104", "`peak_flops.fp9` is not a known key"),
    "misspelt key": (f"memory_byte = {NUMBER}", "E104", "`memory_byte` is not a known key"),
    "key inside a number": (
        f"[peak_flops]\nfp8 = {number(colour=repr('red'))}",
        "E104",
        "`peak_flops.fp8.colour`",
    ),
    "FP8 below BF16": (f"[peak_flops]\nfp8 = {number(value='5e14')}", "E109", "`peak_flops.fp8` is below"),
    "unknown scale-up": ('scale_up = "ring"', "E104", "`scale_up` is not one of mesh, switch, pcie"),
    "unknown vendor": ('vendor = "acme"', "E104", "`vendor`"),
    "unknown device": ('device_type = "tpu"', "E104", "`device_type`"),
    "text for a list": ('relatives = "h100-sxm"', "E104", "`relatives` is not a list of texts"),
    "half a capability": (
        "[properties]\ncompute_capability = [9]\nsource = 'p'\ndate = '2026'\ntrust = 'vendor'",
        "E104",
        "`properties.compute_capability`",
    ),
    "properties without source": ("[properties]\nwarp_size = 32", "E103", "`properties.trust` is missing"),
    "fractional warp": (
        "[properties]\ncompute_capability = [9, 0]\nwarp_size = 32.5\n"
        "source = 'p'\ndate = '2026'\ntrust = 'vendor'",
        "E104",
        "`properties.warp_size` is not a whole number",
    ),
    "links without bandwidth": (
        "link_bytes_per_s = { value = 0, unit = 'B/s', source = 'page', date = '2026', trust = 'vendor' }",
        "E106",
        "`link_bytes_per_s.value`",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_files_are_refused_with_their_place(case: str, tmp_path: Path) -> None:
    text, code, what = CASES[case]
    place = folder(tmp_path, based(text))
    with pytest.raises(WindtunnelError) as caught:
        chip("my-card", folders=[tmp_path])
    assert caught.value.code == code
    assert what in caught.value.what
    assert caught.value.exit_status == 2
    assert caught.value.values["file"] == place / FILE_NAME


@pytest.mark.parametrize("text", ["title = ", "[peak_flops", "a = 1\na = 2", "\x00"])
def test_a_file_that_is_not_toml(text: str, tmp_path: Path) -> None:
    folder(tmp_path, text)
    with pytest.raises(WindtunnelError, match="is not TOML") as caught:
        chip("my-card", folders=[tmp_path])
    assert caught.value.code == "E102"


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (folder(tmp_path, "") / FILE_NAME).write_bytes(b"\xff\xfe title")
    with pytest.raises(WindtunnelError, match="not UTF-8"):
        chip("my-card", folders=[tmp_path])


def test_a_file_from_nothing_names_what_is_missing(tmp_path: Path) -> None:
    folder(tmp_path, 'title = "T"')
    with pytest.raises(WindtunnelError) as caught:
        chip("my-card", folders=[tmp_path])
    assert caught.value.code == "E103"


def test_a_number_of_the_base_is_replaced_whole(tmp_path: Path) -> None:
    folder(tmp_path, based(f"[peak_flops]\nfp8 = {number()}"))
    mine, base = chip("my-card", folders=[tmp_path]), chip("h100-sxm")
    assert (mine.peak_flops["fp8"].source, mine.peak_flops["fp8"].value) == ("page", 2e15)
    assert mine.peak_flops["bf16"].value == base.peak_flops["bf16"].value
    assert mine.tdp_w.value == base.tdp_w.value
    assert mine.aliases == ()
    assert mine.note == ""


def test_numbers_of_the_base_are_conclusions_about_this_chip(tmp_path: Path) -> None:
    folder(tmp_path, based(""))
    mine, base = chip("my-card", folders=[tmp_path]), chip("h100-sxm")
    assert (base.tdp_w.trust, base.tdp_w.note) == (Trust.VENDOR, "")
    assert (mine.tdp_w.trust, mine.tdp_w.note) == (Trust.DERIVED, "as h100-sxm")
    assert mine.tdp_w.source == base.tdp_w.source
    assert mine.peak_flops["fp8"].trust is Trust.DERIVED
    assert mine.kernel_floor_s.trust is Trust.ASSUMED
    assert mine.properties is not None
    assert mine.properties.note == "as h100-sxm"


def test_chips_based_on_each_other(tmp_path: Path) -> None:
    folder(tmp_path, 'based_on = "b"\ntitle = "A"', "a")
    folder(tmp_path, 'based_on = "a"\ntitle = "B"', "b")
    with pytest.raises(WindtunnelError, match="circle: a → b → a") as caught:
        chip("a", folders=[tmp_path])
    assert caught.value.code == "E109"


@pytest.mark.parametrize("name", ["My Card", "a.b", "a,b", "a:1", "Card"])
def test_names_that_would_be_misread(name: str, tmp_path: Path) -> None:
    place = folder(tmp_path, based(""), name)
    with pytest.raises(WindtunnelError, match="cannot be the name") as caught:
        chip(name.lower(), folders=[place])
    assert caught.value.code == "E109"


def test_folders_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = folder(tmp_path / "x", based(""), "one")
    folder(tmp_path / "many", based(""), "two")
    assert chip("one", folders=[one]).name == "one"
    assert {"one", "two", "h100-sxm"} <= set(chip_names([one, tmp_path / "many"]))
    monkeypatch.setenv(FOLDERS_VARIABLE, f"{one}:{tmp_path / 'many'}")
    assert chip("two").title == "T"
    assert "one" in chip_names()


def test_a_chip_of_the_user_hides_a_shipped_one(tmp_path: Path) -> None:
    text = (CHIPS / "h100-sxm" / FILE_NAME).read_text(encoding="utf-8").replace("H100 SXM 80 GB", "Mine")
    folder(tmp_path, text, "h100-sxm")
    assert "Mine" in chip("h100-sxm", folders=[tmp_path]).title
    assert "Mine" not in chip("h100-sxm").title


@pytest.mark.parametrize("place", ["absent", "."])
def test_a_folder_without_chips(place: str, tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as caught:
        chip_names([tmp_path / place])
    assert caught.value.code == "E108"
