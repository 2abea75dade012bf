"""Finding data sets: folder, layout and pairs, and the messages for every wrong arrangement of files."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.io import savemat

from flexseg.benchmark.blocks import Part, SetDomain
from flexseg.data.layouts import Located, advise_skip, list_pairs, locate, take_inventory
from flexseg.data.places import Missing, data_root
from flexseg.data.sets import load_set
from flexseg.errors import UserError
from flexseg.yaml_files import parse_yaml

Touch = Callable[..., None]


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    """``touch(path, …)``: make files below the data root, ``tmp_path``; their content is never read here."""

    def make(*paths: str) -> None:
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()

    return make


def ids(name: str, root: Path, split: str, **options: object) -> list[str]:
    dataset = load_set(name)
    return [pair.id for pair in list_pairs(dataset, locate(dataset, root), split, **options)]


CITY = "leftImg8bit/val/{0}/{0}_{1}_leftImg8bit.png"
CITY_LABEL = "gtFine/val/{0}/{0}_{1}_gtFine_{2}.png"


def city(where: str, count: int = 2, kinds: tuple[str, ...] = ("labelIds",), images: bool = True) -> list[str]:
    names = [("ulm", f"{n:06d}_000019") for n in range(count)]
    paths = [where + CITY_LABEL.format(*name, kind) for name in names for kind in kinds]
    return paths + [where + CITY.format(*name) for name in names if images]


def test_cityscapes_train_ids_are_used_where_all_are_there(tmp_path: Path, touch: Touch) -> None:
    touch(*city("cityscapes/", kinds=("labelIds", "labelTrainIds", "color", "instanceIds")))
    dataset = load_set("cityscapes")
    assert locate(dataset, tmp_path).layout.name == "labelTrainIds"
    (tmp_path / "cityscapes" / CITY_LABEL.format("ulm", "000001_000019", "labelTrainIds")).unlink()
    located = locate(dataset, tmp_path)
    assert located.layout.name == "labelIds"
    pairs = list_pairs(dataset, located, "val")
    assert [pair.id for pair in pairs] == ["ulm_000000_000019", "ulm_000001_000019"]
    assert all(pair.label.name.endswith("_labelIds.png") and pair.label.is_file() for pair in pairs)


def test_where_a_set_may_be(tmp_path: Path, touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_set("cityscapes")
    touch(*city("Cityscapes/"), *city("elsewhere/deep/"))
    assert locate(dataset, tmp_path).root == tmp_path / "Cityscapes"
    assert locate(dataset, tmp_path / "Cityscapes").root == tmp_path / "Cityscapes", "the data root is the set itself"
    assert locate(dataset, tmp_path, "elsewhere/deep").root == tmp_path / "elsewhere" / "deep"
    assert locate(dataset, None, str(tmp_path / "elsewhere/deep")).root == tmp_path / "elsewhere" / "deep"
    monkeypatch.setenv("FLEXSEG_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("/other") == Path("/other"), "the benchmark's own word counts more"
    monkeypatch.delenv("FLEXSEG_DATA")
    assert data_root() is None


def problem(name: str, root: Path | None, override: str = "") -> tuple[str, str]:
    with pytest.raises(Missing) as caught:
        locate(load_set(name), root, override)
    return caught.value.state, str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    state, text = problem("acdc", tmp_path)
    assert state == "missing"
    for part in ("rgb_anon_trainvaltest.zip", "gt_trainval.zip", "https://acdc", "non-commercial", f"{tmp_path}/acdc"):
        assert part in text
    assert "FLEXSEG_DATA" in problem("acdc", None)[1]
    assert "FLEXSEG_DATA" in problem("acdc", None, "below")[1]
    assert "is no folder" in problem("acdc", tmp_path / "none")[1]


@pytest.mark.parametrize("start", ["cityscapes/leftImg8bit", "cityscapes/leftImg8bit/val", "cityscapes/gtFine"])
def test_a_root_too_deep(start: str, tmp_path: Path, touch: Touch) -> None:
    touch(*city("cityscapes/"))
    for arguments in ((tmp_path / start, ""), (None, str(tmp_path / start))):
        state, text = problem("cityscapes", *arguments)
        assert state == "missing"
        assert f"in {tmp_path}/cityscapes: give its domain `root: {tmp_path}/cityscapes`" in text


def test_a_root_too_high(tmp_path: Path, touch: Touch) -> None:
    touch(*city("data/my-cityscapes/"))
    for root in (tmp_path, tmp_path / "data"):
        text = problem("cityscapes", root)[1]
        assert f"`root: {tmp_path}/data/my-cityscapes`" in text
        assert "FLEXSEG_DATA" not in text, "that folder is the set's, and no data root"
    touch("sets/mapillary/vistas/validation/images/a.jpg", "sets/mapillary/vistas/validation/labels/a.png")
    assert f"`root: {tmp_path}/sets/mapillary/vistas`" in problem("mapillary", tmp_path / "sets")[1]


def test_the_wrong_data_root(tmp_path: Path, touch: Touch) -> None:
    """One level too high or too low: the one that is meant is named, for sets with a folder of their own too."""
    touch("x/data/gta5/images/00001.png", "x/data/gta5/labels/00001.png", *city("x/data/cityscapes/"))
    touch("x/data/mine/images/a.png", "x/data/mine/labels/a.png")
    for root in (tmp_path / "x", tmp_path / "x/data/cityscapes"):
        for name, override, folder in (("gta5", "", "gta5"), ("generated", "mine", "mine")):
            text = problem(name, root, override)[1]
            assert f"but in {tmp_path}/x/data/{folder}: give its domain" in text
            assert f"set FLEXSEG_DATA (or data_root) to {tmp_path}/x/data" in text
    touch(*city("y/cityscapes/cityscapes/"))
    assert "FLEXSEG_DATA" not in problem("cityscapes", tmp_path / "y")[1], "a set in itself makes no other data root"


def test_names_of_roots(tmp_path: Path, touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tilde, relative, with a slash at the end, with spaces and letters of any kind, and by a link."""
    touch(*city("meine Daten ü 数据/cityscapes/"))
    (tmp_path / "link").symlink_to(tmp_path / "meine Daten ü 数据")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for root in ("~/link", "link", "./link/", f"{tmp_path}/link/", "meine Daten ü 数据", "~/meine Daten ü 数据/"):
        monkeypatch.setenv("FLEXSEG_DATA", root)
        assert len(ids("cityscapes", data_root(), "val")) == 2
    monkeypatch.setenv("FLEXSEG_DATA", "~nobody-here/data")
    with pytest.raises(UserError, match="there is no user 'nobody-here'; give the whole path"):
        data_root()


def test_what_other_programs_leave_among_the_files(tmp_path: Path, touch: Touch) -> None:
    """macOS' ._x.png has the name of an image and is none."""
    for kind, ending in (("images/10k", "jpg"), ("labels/sem_seg/masks", "png")):
        touch(*(f"bdd100k/{kind}/val/{name}" for name in (f"a.{ending}", f"._a.{ending}", ".DS_Store", "Thumbs.db")))
    assert ids("bdd100k", tmp_path, "val") == ["a"]
    touch(
        "generated/images/a.png", "generated/images/._b.png", "generated/images/desktop.ini", "generated/labels/a.png"
    )
    dataset = load_set("generated")
    found = take_inventory(dataset, locate(dataset, tmp_path), "all")
    assert ([pair.id for pair in found.pairs], found.unlabelled, found.orphans) == (["a"], {}, [])


def test_folders_that_may_not_be_read(tmp_path: Path, touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*city("cityscapes/"), "cityscapes/leftImg8bit/val/bonn/x.png")
    denied: list[Path] = []
    scan = os.scandir

    def guarded(folder: Path) -> Any:
        if any(Path(folder).is_relative_to(place) for place in denied):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr("flexseg.data.templates.os.scandir", guarded)
    dataset = load_set("cityscapes")
    denied.append(tmp_path / "cityscapes/leftImg8bit/val/bonn")  # a part of it
    located = locate(dataset, tmp_path)
    assert list(take_inventory(dataset, located, "val").unread) == denied
    with pytest.raises(UserError, match=r"bonn may not be read \(permission denied\)"):
        list_pairs(dataset, located, "val")
    denied.append(tmp_path / "cityscapes/gtFine")  # half of it: no word of unpacking
    state, text = problem("cityscapes", tmp_path)
    assert (state, "unpack" in text) == ("missing", False)
    assert f"`chmod -R u+rX {tmp_path}/cityscapes/" in text
    monkeypatch.setattr("flexseg.data.places.os.access", lambda *_: False)
    assert f"the data root {tmp_path} may not be read" in problem("cityscapes", tmp_path)[1]


def test_archives_that_are_not_unpacked_and_links_to_nowhere(tmp_path: Path, touch: Touch) -> None:
    touch("acdc/gt_trainval.zip", "acdc/other.zip")
    assert f"{tmp_path}/acdc/gt_trainval.zip is not unpacked yet" in problem("acdc", tmp_path)[1]
    (tmp_path / "gta5").symlink_to("/no/such/disk")
    assert f"{tmp_path}/gta5 is a link to /no/such/disk, which is not there" in problem("gta5", tmp_path)[1]


ACDC = "rgb_anon/fog/val/GOPR0476/GOPR0476_frame_000854_rgb_anon.png"
ACDC_LABEL = "gt/fog/val/GOPR0476/GOPR0476_frame_000854_gt_labelTrainIds.png"


@pytest.mark.parametrize("images", ["", "rgb_anon_trainvaltest/"])
@pytest.mark.parametrize("labels", ["", "gt_trainval/"])
def test_acdcs_archives_may_be_unpacked_separately(images: str, labels: str, tmp_path: Path, touch: Touch) -> None:
    touch(f"acdc/{images}{ACDC}", f"acdc/{labels}{ACDC_LABEL}")
    assert ids("acdc", tmp_path, "val") == ["GOPR0476_frame_000854"]


def test_half_unpacked(tmp_path: Path, touch: Touch) -> None:
    touch(f"acdc/{ACDC}")
    state, text = problem("acdc", tmp_path)
    assert state == "incomplete"
    assert f"images ({ACDC}) but no label such as {ACDC_LABEL}" in text
    assert "unpack gt_trainval.zip" in text
    (tmp_path / "acdc" / ACDC).unlink()
    touch(f"acdc/{ACDC_LABEL}")
    state, text = problem("acdc", tmp_path)
    assert state == "incomplete"
    assert f"labels ({ACDC_LABEL}) but no image such as rgb_anon/" in text
    assert "unpack rgb_anon_trainvaltest.zip" in text
    touch(f"acdc/deeper/{ACDC}")
    assert f"images are one level too deep, in {tmp_path}/acdc/deeper: move" in problem("acdc", tmp_path)[1]
    touch(f"acdc/{ACDC.replace('000854', '000900')}")
    assert "no image has its label" in problem("acdc", tmp_path)[1]


def test_some_labels_or_images_are_missing(tmp_path: Path, touch: Touch) -> None:
    touch(*city("cityscapes/", 5))
    (tmp_path / "cityscapes" / CITY_LABEL.format("ulm", "000003_000019", "labelIds")).unlink()
    dataset = load_set("cityscapes")
    located = locate(dataset, tmp_path)
    with pytest.raises(
        UserError, match=r"1 of 5 images .*'val', have no label, first .*ulm_000003.*gtFine_trainvaltest"
    ):
        list_pairs(dataset, located, "val")
    found = take_inventory(dataset, located, "val")
    assert (len(found.pairs), [path.name[:10] for path in found.unlabelled.values()]) == (4, ["ulm_000003"])
    assert list_pairs(dataset, located, "train") == []
    orphans = tmp_path / "cityscapes" / CITY_LABEL.format("ulm", "000009_000019", "labelIds")
    touch(str(orphans.relative_to(tmp_path)))
    assert take_inventory(dataset, located, "val").orphans == [orphans]


def test_labels_of_the_wrong_release(tmp_path: Path, touch: Touch) -> None:
    touch("mapillary/validation/images/a.jpg", "mapillary/validation/v2.0/labels/a.png")
    state, text = problem("mapillary", tmp_path)
    assert state == "refused"
    assert "ids 0–123, which no paper of this field evaluates" in text
    touch("mapillary/validation/v1.2/labels/a.png")
    assert ids("mapillary", tmp_path, "val") == ["a"], "the labels of 1.2 in the archive of 2.0 are good"
    touch("bdd100k/images/100k/val/a.jpg", "bdd100k/labels/drivable/masks/val/a.png")
    assert "drivable area" in problem("bdd100k", tmp_path)[1]
    shutil.rmtree(tmp_path / "bdd100k")
    touch("bdd100k/seg/images/val/a.jpg", "bdd100k/labels/sem_seg/masks/val/a.png")
    assert "images of one release (seg/images/val/a.jpg) and labels of another" in problem("bdd100k", tmp_path)[1]
    shutil.rmtree(tmp_path / "bdd100k")
    touch("bdd100k/images/100k/val/a.jpg", "bdd100k/labels/sem_seg/masks/val/a.png")
    assert "images are those of the 100k set" in problem("bdd100k", tmp_path)[1], "the 10k images are others"
    touch("synthia/RGB/0000000.png", "synthia/GT/COLOR/0000000.png")
    assert "GT/COLOR holds pictures" in problem("synthia", tmp_path)[1]
    touch("idd/leftImg8bit/val/1/2_leftImg8bit.png", "idd/gtFine/val/1/2_gtFine_polygons.json")
    assert "createLabels.py" in problem("idd", tmp_path)[1]
    touch("lite/idd20k_lite/leftImg8bit/val/1/2_image.jpg", "lite/idd20k_lite/gtFine/val/1/2_label.png")
    assert "seven classes of level 1" in problem("idd", tmp_path / "lite")[1]
    touch(*city("cityscapes/", kinds=()), "cityscapes/gtCoarse/val/ulm/ulm_000000_000019_gtCoarse_labelIds.png")
    assert "coarse annotations" in problem("cityscapes", tmp_path)[1]


def test_acdcs_references_are_left_out(tmp_path: Path, touch: Touch) -> None:
    for condition in ("fog", "night"):
        for split in ("val", "val_ref", "train", "test"):
            image = ACDC.replace("fog", condition).replace("/val/", f"/{split}/").replace("854", condition)
            touch(f"acdc/{image}")
        touch(f"acdc/{ACDC_LABEL.replace('fog', condition).replace('854', condition)}")
    assert ids("acdc", tmp_path, "val") == ["GOPR0476_frame_000fog", "GOPR0476_frame_000night"]
    assert ids("acdc", tmp_path, "val", conditions=["night"]) == ["GOPR0476_frame_000night"]
    assert ids("acdc", tmp_path, "val", conditions=["snow"]) == []
    with pytest.raises(UserError, match=r"no images of the condition mist .*it has fog, night"):
        ids("acdc", tmp_path, "val", conditions=["mist"])


def test_gta5s_split_is_a_list_of_numbers(tmp_path: Path, touch: Touch) -> None:
    touch(*(f"gta5/{kind}/{n:05d}.png" for kind in ("images", "labels") for n in range(1, 8)))
    touch("gta5/labels/00001_labelTrainIds.png")
    with pytest.raises(Missing, match=r"split\.mat .*is not in .*unpack read_mapping\.zip"):
        ids("gta5", tmp_path, "official_val")
    savemat(tmp_path / "gta5/split.mat", {"valIds": [[2], [5]], "trainIds": [[1], [99]]})
    assert ids("gta5", tmp_path, "official_val") == ["00002", "00005"]
    assert len(ids("gta5", tmp_path, "all")) == 7
    with pytest.raises(UserError, match=r"1 images .*named in its list but not there, first 00099"):
        ids("gta5", tmp_path, "official_train")
    with pytest.raises(UserError, match=r"split\.mat cannot be read .*no variable testIds"):
        ids("gta5", tmp_path, "official_test")
    content = bytearray((tmp_path / "gta5/split.mat").read_bytes())
    content[185] = 185  # a length: SciPy's reader crashes on it
    (tmp_path / "gta5/split.mat").write_bytes(content)
    with pytest.raises(UserError, match=r"split\.mat cannot be read as a list"):
        ids("gta5", tmp_path, "official_val")
    (tmp_path / "gta5/split.mat").write_bytes(b"MATLAB, not really")
    with pytest.raises(UserError, match=r"split\.mat cannot be read as a list"):
        ids("gta5", tmp_path, "official_val")


@pytest.mark.parametrize("line", ["RGB/GOPR0122/b.png", "/some/where/RGB/GOPR0122/b.png", "b", "GOPR0122/b", "b.png\r"])
def test_a_line_may_name_an_image_in_several_ways(line: str, tmp_path: Path, touch: Touch) -> None:
    for name in "abc":
        touch(f"foggy_zurich/RGB/GOPR0122/{name}.png", f"foggy_zurich/gt_labelTrainIds/GOPR0122/{name}.png")
    touch("foggy_zurich/lists_file_names/RGB_testv2_filenames.txt")
    with pytest.raises(UserError, match="names no image"):
        ids("foggy_zurich", tmp_path, "testv2")
    (tmp_path / "foggy_zurich/lists_file_names/RGB_testv2_filenames.txt").write_text(f"{line}\n\n")
    assert ids("foggy_zurich", tmp_path, "testv2") == ["b"]


def test_foggy_driving_has_two_trees_of_labels(tmp_path: Path, touch: Touch) -> None:
    image, label = "foggy_driving/leftImg8bit/{}/web/{}_leftImg8bit.png", "foggy_driving/{}/{}/web/{}_{}_labelIds.png"
    touch(image.format("test", "web_a_1"), label.format("gtFine", "test", "web_a_1", "gtFine"))
    touch(image.format("test_extra", "web_b_1"), label.format("gtCoarse", "test_extra", "web_b_1", "gtCoarse"))
    found = {split: ids("foggy_driving", tmp_path, split) for split in ("fine", "coarse", "all")}
    assert found == {"fine": ["web_a_1"], "coarse": ["web_b_1"], "all": ["web_a_1", "web_b_1"]}


def test_generated_folders(tmp_path: Path, touch: Touch) -> None:
    """With or without the suffix, but never in the data root itself, where others have such folders."""
    touch("images/00001.png", "labels/00001.png")
    assert problem("generated", tmp_path)[0] == "missing"
    touch("generated/images/a.jpg", "generated/images/b.png", "generated/labels/a.png", "generated/labels/b.png")
    assert ids("generated", tmp_path, "all") == ["a", "b"]
    touch("dgi/images/a.png", "dgi/labels/a_labelTrainIds.png")
    located = locate(load_set("generated"), tmp_path, "dgi")
    assert (located.layout.name, located.root) == ("trainIds suffix", tmp_path / "dgi")
    touch("generated/images/a.png")
    with pytest.raises(UserError, match=r"the same image by name \(a\)"):
        ids("generated", tmp_path, "all")


def test_wilddash_labels_are_no_images(tmp_path: Path, touch: Touch) -> None:
    for suffix in ("", "_labelIds", "_instanceIds", "_labelColors"):
        touch(f"wilddash/wd_val_01/us0001_100000{suffix}.png")
    assert ids("wilddash", tmp_path, "val") == ["us0001_100000"]
    with pytest.raises(UserError, match="no split 'public': in this layout"):
        ids("wilddash", tmp_path, "public")
    touch("sets/mapillary/validation/images/-0a_b.jpg", "sets/mapillary/validation/labels/-0a_b.png")
    assert "mapillary" not in problem("wilddash", tmp_path / "sets")[1], "another set's folders named alike"


def test_dark_zurichs_training_images_have_no_labels_and_need_none(tmp_path: Path, touch: Touch) -> None:
    image, label = (
        "dark_zurich/rgb_anon/{}/night/G/{}_rgb_anon.png",
        "dark_zurich/gt/val/night/G/{}_gt_labelTrainIds.png",
    )
    touch(image.format("val", "a"), label.format("a"), image.format("train", "b"))
    touch("dark_zurich/rgb_anon/val_ref/day/G_ref/a_ref_rgb_anon.png")
    assert ids("dark_zurich", tmp_path, "val") == ["a"]


def test_camvids_published_split(tmp_path: Path, touch: Touch) -> None:
    """Of the original release, where it is told by sequence and number: 367, 101 and 233 frames."""
    names = [f"0001TP_{n:06d}" for n in range(6690, 10381, 30)] + [f"Seq05VD_f{n:05d}" for n in range(0, 5101, 30)]
    names += [f"0006R0_f{n:05d}" for n in range(930, 3931, 30)] + [f"0016E5_{n:05d}" for n in range(390, 6481, 30)]
    names += [f"0016E5_{n:05d}" for n in range(7959, 8160, 2)]
    touch(*(f"camvid/701_StillsRaw_full/{name}.png" for name in names))
    touch(*(f"camvid/LabeledApproved_full/{name}_L.png" for name in names))
    dataset = load_set("camvid")
    located = locate(dataset, tmp_path)
    assert located.layout.name == "original"
    pairs = {split: list_pairs(dataset, located, split) for split in dataset.splits}
    assert {split: len(found) for split, found in pairs.items()} == {"train": 367, "val": 101, "test": 233}
    assert len({pair.id for found in pairs.values() for pair in found}) == 701
    dusk = {split: sum(pair.condition == "dusk" for pair in found) for split, found in pairs.items()}
    assert dusk == {"train": 62, "val": 0, "test": 62}


def test_ids_that_repeat_across_drives_stay_distinct(tmp_path: Path, touch: Touch) -> None:
    for drive in (1, 2):
        touch(f"idd/leftImg8bit/val/{drive}/000100_leftImg8bit.png")
        touch(f"idd/gtFine/val/{drive}/000100_gtFine_labelcsTrainIds.png")
    assert ids("idd", tmp_path, "val") == ["1_000100", "2_000100"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOENT])
def test_a_listing_that_breaks_off_is_not_the_whole(
    tmp_path: Path, touch: Touch, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As on a network mount that stops answering in the middle of a folder."""
    touch(*city("cityscapes/", 5))
    scan = os.scandir

    class Broken:
        def __init__(self, folder: Path) -> None:
            self.entries = list(scan(folder))

        def __enter__(self) -> Any:
            yield from self.entries[:2]
            raise OSError(number, os.strerror(number))

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(
        "flexseg.data.templates.os.scandir", lambda at: Broken(at) if str(at).endswith("ulm") else scan(at)
    )
    dataset = load_set("cityscapes")
    match = f"ulm cannot be read .{os.strerror(number)}., so what is in it is not known"
    with pytest.raises(UserError, match=match):
        list_pairs(dataset, Located(tmp_path / "cityscapes", dataset.layouts[0]), "val")
    with pytest.raises(Missing, match=match):  # else another layout might seem to have more pairs
        locate(dataset, tmp_path)


def test_a_loop_of_links_hides_nothing(tmp_path: Path, touch: Touch) -> None:
    touch(*city("cityscapes/", 5))
    folder = tmp_path / "cityscapes" / "leftImg8bit" / "val"
    dataset = load_set("cityscapes")
    located = locate(dataset, tmp_path)
    (folder / "ulm" / "readme").symlink_to("readme")  # no image by its name
    before = len(list_pairs(dataset, located, "val"))
    (folder / "bonn").symlink_to("bonn")
    with pytest.raises(UserError, match=r"bonn cannot be read \(Too many levels of symbolic links\)"):
        list_pairs(dataset, located, "val")
    assert before == 5


def test_files_beside_the_pattern_are_named(tmp_path: Path, touch: Touch) -> None:
    touch(*(f"generated/images/{name}" for name in ("a.png", "b.PNG", "c.webp", "d.bmp", "e.png.part")))
    touch(*(f"generated/labels/{name}.png" for name in ("a", "b", "c", "d", "x y")), "generated/labels/a.txt")
    dataset = load_set("generated")
    found = take_inventory(dataset, locate(dataset, tmp_path), "all")
    assert [pair.id for pair in found.pairs] == ["a", "b", "c"]
    assert found.notes(found.unlabelled) == [
        "2 labels have no image and are not used: d.png, x y.png",
        "1 picture has a name of another form and is not used: images/d.bmp",
    ]


def test_names_that_are_not_utf8_are_left_out_and_named(tmp_path: Path, touch: Touch) -> None:
    touch("generated/images/a.png", "generated/labels/a.png")
    for kind in ("images", "labels"):
        (tmp_path / "generated" / kind / os.fsdecode(b"caf\xe9.png")).touch()
    dataset = load_set("generated")
    found = take_inventory(dataset, locate(dataset, tmp_path), "all")
    assert [pair.id for pair in found.pairs] == ["a"]
    assert (
        found.notes(found.unlabelled)[-1]
        == "2 files have a name in another encoding than UTF-8 and are not used: caf\\xe9.png, caf\\xe9.png"
    )


def test_a_link_to_nowhere_hides_no_folder(tmp_path: Path, touch: Touch) -> None:
    """As where the disk that it leads to is not mounted: the images behind it are not just fewer images."""
    touch(*city("cityscapes/", 5))
    dataset = load_set("cityscapes")
    located = locate(dataset, tmp_path)
    folder = tmp_path / "cityscapes/leftImg8bit/val"
    (folder / "READ ME").symlink_to("nowhere")  # no city by its name
    assert len(list_pairs(dataset, located, "val")) == 5
    (folder / "bonn").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"val/bonn cannot be read \(it is a link to nowhere\)"):
        list_pairs(dataset, located, "val")


def test_pictures_in_folders_above_and_below_are_named(tmp_path: Path, touch: Touch) -> None:
    prompts = ["fog/a", "fog/b", "night/c"]
    touch(*(f"generated/{kind}/{name}.png" for kind in ("images", "labels") for name in prompts))
    dataset = load_set("generated")
    located = locate(dataset, tmp_path)
    assert take_inventory(dataset, located, "all").notes(()) == []
    touch("generated/images/flat.png", "generated/images/fog/more/deep.JPG", "generated/images/fog/x.avif")
    touch("generated/images/a.txt", "generated/preview.png")
    (tmp_path / "generated/images/fog/loop").symlink_to("..")  # what is found there is there once more
    found = take_inventory(dataset, located, "all")
    assert len(found.pairs) == 3
    names = {path.name for path in found.strays}
    assert {"flat.png", "deep.JPG", "x.avif"} <= names
    assert "preview.png" not in names


def test_folders_whose_names_are_not_expected_are_no_secret(tmp_path: Path, touch: Touch) -> None:
    touch(*city("cityscapes/"), "cityscapes/leftImg8bit/val/ulm_2/ulm_000007_000019_leftImg8bit.png")
    other = tmp_path / "cityscapes/leftImg8bit/val" / os.fsdecode(b"caf\xe9")
    other.mkdir()
    (other / "x_000000_000019_leftImg8bit.png").touch()
    dataset = load_set("cityscapes")
    found = take_inventory(dataset, locate(dataset, tmp_path), "val")
    assert {path.name for path in found.strays} == {
        "ulm_000007_000019_leftImg8bit.png",
        "x_000000_000019_leftImg8bit.png",
    }


def test_what_belongs_to_other_splits_and_releases_is_no_stray(tmp_path: Path, touch: Touch) -> None:
    touch(*city("cityscapes/", kinds=("labelIds", "labelTrainIds", "color", "instanceIds")))
    touch("cityscapes/leftImg8bit/train/bonn/bonn_000000_000019_leftImg8bit.png")
    for name in ("0000", "0001"):
        touch(f"acdc/rgb_anon/fog/val/GP/{name}_rgb_anon.png", f"acdc/gt/fog/val/GP/{name}_gt_labelTrainIds.png")
        touch(f"acdc/gt/fog/val/GP/{name}_gt_labelColor.png", f"acdc/rgb_anon/fog/val_ref/GP/{name}_rgb_ref_anon.png")
    for kind in ("images/{}.jpg", "labels/{}.png", "labels/{}_labelTrainIds.png"):
        touch(*("mapillary/validation/" + kind.format(name) for name in ("a", "b")))
    for name in ("cityscapes", "acdc", "mapillary"):
        dataset = load_set(name)
        assert take_inventory(dataset, locate(dataset, tmp_path), "val").notes(()) == []


ODD_IDS = [
    *("00002", "12", "1_2", "1e5", "0x1F", ".5", "true", "No", "null", "~", "a: b", "#x", "x#y", "[x]", "a,b"),
    *("é", "日本", "&x"),
    *("😀", "a\nb", "a\tb", "\x1b[31m", "\x7f", "a\x85b", "a\u2028b", "'q'", '"q"', "\\x", "-", "a b ", "2020-01-01"),
]


@pytest.mark.parametrize("name", ODD_IDS)
def test_ids_can_be_copied_from_the_advice(name: str) -> None:
    advice = advise_skip([name])
    assert advice.isprintable()
    written = advice[advice.index("(") + 1 : advice.rindex(")")]
    domain = {"dataset": "gta5"} | parse_yaml(written)
    assert SetDomain.model_validate(domain).skip == [name]


def test_expected_may_count_what_is_left(tmp_path: Path, touch: Touch) -> None:
    touch(
        *(f"generated/{kind}/{name}.png" for kind in ("images", "labels") for name in "abcd"), "generated/images/e.png"
    )
    dataset = load_set("generated")
    found = take_inventory(dataset, locate(dataset, tmp_path), "all")
    assert found.numbers((), ()) == {4}
    assert found.numbers(["e"], ["a"]) == {3, 4, 5}
    for part, without in (
        ({}, []),
        ({"unlabelled": 1}, ["e"]),
        ({"unlabelled": 0}, []),
        ({"expected": 4}, ["e"]),
        ({"expected": 4, "unlabelled": 0}, []),
        ({"expected": 5}, []),
    ):
        assert found.without((), Part.model_validate({"split": "all"} | part)) == without, part
    assert found.without(["e"], Part(split="all", unlabelled=0)) == ["e"]
    assert found.notes(["e"], ["a", "z"]) == [
        "1 of 4 pairs are left out by `skip:`: a",
        "1 image has no label and is not used: e",
    ]


def test_a_disk_that_fails_leads_to_no_other_copy(
    tmp_path: Path, touch: Touch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("gta5", "GTA5"):
        touch(f"{folder}/images/00001.png", f"{folder}/labels/00001.png")
    dataset, scan = load_set("gta5"), os.scandir
    assert locate(dataset, tmp_path).root.name == "gta5"

    def fail(path: Path) -> object:
        if "gta5" in Path(path).parts:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(Missing, match=r"GTA5 cannot be seen: .*gta5.* cannot be read \(Input/output error\)"):
        locate(dataset, tmp_path)


def test_labels_of_other_endings_are_named_where_labels_lack(tmp_path: Path, touch: Touch) -> None:
    touch(*(f"generated/images/{name}.png" for name in "ab"), "generated/labels/a.png", "generated/labels/b.PNG")
    with pytest.raises(UserError, match=r"have no label, .*1 picture has a name .* not used: labels/b\.PNG"):
        ids("generated", tmp_path, "all")
